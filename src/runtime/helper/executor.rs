//! The last steps in the container's first process, between libcontainer's preparations and the program.

use std::ffi::CString;
use std::io::Write;
use std::os::fd::OwnedFd;
use std::rc::Rc;

use libcontainer::oci_spec::runtime::Spec;
use libcontainer::workload::{Executor, ExecutorError, ExecutorValidationError};
use nix::libc;
use nix::sys::signal::SigSet;
use seccompiler::BpfProgram;

/// Installs the system call filter and executes the program; says through a pipe why it could not.
///
/// libcontainer without its C library applies no filter, so it is done here, where nothing but `execve` follows.
#[derive(Clone)]
pub struct Filtered {
    /// See [`super::seccomp::programs`].
    pub filters: Rc<Vec<BpfProgram>>,
    /// Closed by a successful execution; else the reason comes through it.
    pub failure: Rc<OwnedFd>,
}

impl Filtered {
    fn execute(&self, spec: &Spec) -> Result<(), String> {
        let arguments = spec
            .process()
            .as_ref()
            .and_then(|process| process.args().clone())
            .unwrap_or_default();
        let arguments = arguments
            .into_iter()
            .map(CString::new)
            .collect::<Result<Vec<_>, _>>()
            .map_err(|_| "an argument has a NUL byte".to_owned())?;
        let program = arguments.first().ok_or("there is no command")?;
        restore_signals().map_err(|error| error.desc().to_owned())?;
        for filter in self.filters.iter() {
            seccompiler::apply_filter(filter).map_err(|error| error.to_string())?;
        }
        match nix::unistd::execvp(program, &arguments) {
            Ok(never) => match never {},
            Err(error) => Err(error.desc().to_owned()),
        }
    }
}

impl Executor for Filtered {
    fn exec(&self, spec: &Spec) -> Result<(), ExecutorError> {
        let Err(reason) = self.execute(spec) else {
            return Ok(());
        };
        if let Ok(pipe) = self.failure.try_clone() {
            let _ = std::fs::File::from(pipe).write_all(reason.as_bytes());
        }
        Err(ExecutorError::Other(reason))
    }

    fn validate(&self, _: &Spec) -> Result<(), ExecutorValidationError> {
        // Whether the program can be executed is found out by executing it. Bound here rather than later: changing
        // ids, which is done by now, clears it.
        rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))
            .map_err(|error| ExecutorValidationError::ArgValidationError(error.to_string()))
    }
}

/// Programs expect no blocked and no ignored signal, whatever imagewright itself was started with.
fn restore_signals() -> nix::Result<()> {
    // The C library keeps two signals for itself and hides them; the kernel does not.
    let default = [0_u64; 4];
    for signal in 1..=64 {
        // SAFETY: 32 zero bytes are a `sigaction` of the kernel with the default disposition; it copies them. Fails
        // for SIGKILL and SIGSTOP, which have no disposition.
        #[allow(unsafe_code)]
        unsafe {
            libc::syscall(libc::SYS_rt_sigaction, signal, &default, 0, 8);
        }
    }
    SigSet::empty().thread_set_mask()
}
