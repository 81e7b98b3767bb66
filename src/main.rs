//! The `imagewright` command; everything is in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    // Before anything else: the container helper must never have had a second thread.
    #[cfg(target_os = "linux")]
    if std::env::args_os()
        .nth(1)
        .is_some_and(|first| first == imagewright::runtime::helper::ARGUMENT)
    {
        return imagewright::runtime::helper::main();
    }
    imagewright::cli::main()
}
