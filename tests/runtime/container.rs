//! What a container sees, may do, and how its end is told.

use imagewright::runtime::{BindMount, Outcome, Privileges, RuntimeError};

use crate::support::Bench;

#[test]
fn tells_exit_codes_and_passes_output_on() {
    let bench = Bench::new();
    let (ended, said) = bench
        .run(&bench.spec("echo out; echo err >&2; exit 7"))
        .unwrap();
    assert_eq!(ended.outcome, Outcome::Exited(7));
    assert_eq!(
        (said.out().as_str(), said.err().as_str()),
        ("out\n", "err\n")
    );
}

#[test]
fn gives_command_environment_folder_ids_and_host_name() {
    let bench = Bench::new();
    let mut spec = bench.spec("pwd; id -u; id -g; hostname; echo $GREETING; stat -c %u:%g .");
    spec.env.insert("GREETING".into(), "hello you".into());
    spec.cwd = "/made/for/you".into();
    assert_eq!(
        bench.says(&spec),
        "/made/for/you\n1000\n1000\nbench\nhello you\n1000:1000\n"
    );
    spec.uid = 1_000_680_000;
    spec.argv[2] = "id -u".into();
    assert_eq!(bench.says(&spec), "1000680000\n");
}

#[test]
fn names_a_program_that_does_not_exist() {
    let bench = Bench::new();
    let mut spec = bench.spec("");
    spec.argv = vec!["pytest".into()];
    let error = bench.run(&spec).err().unwrap();
    assert!(
        matches!(&error, RuntimeError::Start { program, .. } if program == "pytest"),
        "{error:?}"
    );
}

#[test]
fn has_no_capability_no_new_privileges_and_a_filter() {
    let bench = Bench::new();
    let mut spec = bench.spec("");
    spec.argv = vec!["cat".into(), "/proc/self/status".into()];
    let status = bench.says(&spec);
    let field = |name: &str| {
        let line = status.lines().find(|line| line.starts_with(name)).unwrap();
        line.split_whitespace().nth(1).unwrap().to_owned()
    };
    for set in ["CapInh:", "CapPrm:", "CapEff:", "CapBnd:", "CapAmb:"] {
        assert_eq!(field(set), "0000000000000000", "{set}");
    }
    assert_eq!(field("NoNewPrivs:"), "1");
    assert_eq!(field("Seccomp:"), "2");
    assert_eq!(field("SigBlk:"), "0000000000000000");
    assert_eq!(field("SigIgn:"), "0000000000000000");
}

#[test]
fn root_holds_only_the_named_capabilities() {
    let bench = Bench::new();
    let mut spec = bench.spec("grep CapBnd /proc/self/status");
    (spec.uid, spec.gid) = (0, 0);
    // chown, dac_override, fowner, fsetid, kill, setgid, setuid, net_bind_service
    assert_eq!(bench.says(&spec), "CapBnd:\t00000000000004fb\n");
    spec.privileges = Privileges::Dpkg;
    // and sys_chroot, mknod, audit_write, setfcap
    assert_eq!(bench.says(&spec), "CapBnd:\t00000000a80404fb\n");
}

#[test]
fn cannot_mount_make_namespaces_or_change_the_machine_even_as_root() {
    let bench = Bench::new();
    let script = "
        mount -t tmpfs none /tmp && echo mounted
        umount /proc && echo unmounted
        unshare -U true && echo namespace
        hostname other && echo renamed
        echo x > /proc/sys/kernel/core_pattern && echo core_pattern
        echo b > /proc/sysrq-trigger && echo sysrq
        echo 1 > /sys/kernel/mm/ksm/run && echo sysfs
        mknod /tmp/disk b 8 0 && cat /tmp/disk && echo device
        dmesg && echo dmesg
        cat /proc/kcore | head -c 1 | grep . && echo kcore
        cat /proc/keys | grep . && echo keys
        ls /proc/acpi /proc/scsi /sys/firmware 2>/dev/null | grep -v :$ | grep .
        echo done";
    for privileges in [Privileges::Run, Privileges::Dpkg] {
        let mut spec = bench.spec(script);
        (spec.uid, spec.gid, spec.privileges) = (0, 0, privileges);
        assert_eq!(bench.says(&spec), "done\n", "{privileges:?}");
    }
}

#[test]
fn sees_only_its_own_processes_files_and_devices() {
    let bench = Bench::new();
    let script = "ls /proc > /tmp/seen; grep -c '^[0-9]' /tmp/seen; echo $$; ls -a /; ls /dev; cat /proc/self/cgroup | \
                  grep -v ':/$'; cat /proc/mounts | grep -c imagewright";
    let (ended, said) = bench.run(&bench.spec(script)).unwrap();
    assert_eq!(
        ended.outcome,
        Outcome::Exited(1),
        "no mount names the host: {}",
        said.out()
    );
    let lines: Vec<_> = said.out().lines().map(str::to_owned).collect();
    // sh, which is pid 1, and ls
    assert_eq!(&lines[..2], ["2", "1"]);
    let rest = lines[2..].join(" ");
    assert_eq!(
        rest,
        ". .. bin dev etc proc root sys tmp work fd full null ptmx pts random shm stderr stdin stdout tty \
         urandom zero 0"
    );
}

#[test]
fn network_none_has_loopback_and_host_has_the_machine() {
    let bench = Bench::new();
    let mut spec =
        bench.spec("ls /sys/class/net; ip addr show lo | grep -c 'inet 127.0.0.1'; cat /etc/hosts");
    assert_eq!(
        bench.says(&spec),
        "lo\n1\n127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n127.0.1.1 bench\n"
    );
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || listener.incoming().flatten().for_each(drop));
    spec.argv[2] = format!("nc -w 1 127.0.0.1 {port} </dev/null");
    assert_ne!(bench.run(&spec).unwrap().0.outcome, Outcome::Exited(0));
    spec.network = imagewright::runtime::Network::Host;
    assert_eq!(bench.run(&spec).unwrap().0.outcome, Outcome::Exited(0));
    spec.argv[2] = "cat /etc/resolv.conf".into();
    let host = std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
    assert_eq!(bench.says(&spec), host);
}

#[test]
fn mounts_a_hundred_and_fifty_layers_with_long_names() {
    let bench = Bench::new();
    let mut spec = bench.spec("ls /l | wc -l; cat /top");
    for number in 0..150 {
        let name = format!("{number:064x}");
        let layer = bench.folder.path().join("trees").join(name);
        std::fs::create_dir_all(layer.join("l")).unwrap();
        std::fs::write(layer.join("l").join(number.to_string()), "").unwrap();
        std::fs::write(layer.join("top"), number.to_string()).unwrap();
        spec.lower.push(layer);
    }
    assert_eq!(bench.says(&spec), "150\n149");
}

#[test]
fn keeps_an_upper_folder_and_leaves_layers_alone() {
    let bench = Bench::new();
    let upper = bench.folder.path().join("upper");
    std::fs::create_dir(&upper).unwrap();
    let mut spec = bench.spec("echo new > /etc/new; rm /etc/passwd; chown 12:34 /etc/new");
    (spec.uid, spec.gid, spec.cwd) = (0, 0, "/".into());
    spec.privileges = Privileges::Dpkg;
    spec.upper = Some(upper.clone());
    bench.says(&spec);
    spec.argv[2] = "cat /etc/new; ls /etc".into();
    assert_eq!(bench.says(&spec), "new\nnew\n");
    use std::os::unix::fs::{FileTypeExt, MetadataExt};
    let new = std::fs::metadata(upper.join("etc/new")).unwrap();
    assert_eq!((new.uid(), new.gid()), (12, 34));
    let gone = std::fs::symlink_metadata(upper.join("etc/passwd")).unwrap();
    assert!(gone.file_type().is_char_device() && gone.rdev() == 0);
    let names: Vec<_> = std::fs::read_dir(&upper)
        .unwrap()
        .flatten()
        .map(|e| e.file_name())
        .collect();
    assert_eq!(names, ["etc"], "nothing but what the script did");
    assert!(bench.folder.path().join("root/etc/passwd").exists());
    assert!(!bench.folder.path().join("upper.work").exists());
}

#[test]
fn binds_folders_and_can_be_read_only() {
    let bench = Bench::new();
    let shared = bench.folder.path().join("shared");
    std::fs::create_dir(&shared).unwrap();
    std::os::unix::fs::chown(&shared, Some(1000), Some(1000)).unwrap();
    let mut spec = bench.spec("echo a > /results/a; touch /input/b || echo no; touch /root/c || echo no; touch /tmp/d && echo yes");
    spec.read_only = true;
    spec.mounts = vec![
        BindMount {
            host: shared.clone(),
            target: "/results".into(),
            writable: true,
        },
        BindMount {
            host: shared.clone(),
            target: "/input".into(),
            writable: false,
        },
    ];
    assert_eq!(bench.says(&spec), "no\nno\nyes\n");
    assert_eq!(std::fs::read_to_string(shared.join("a")).unwrap(), "a\n");
}

#[test]
fn the_program_of_the_helper_cannot_be_overwritten() {
    let bench = Bench::new();
    let mut spec = bench.spec("");
    (spec.uid, spec.gid) = (0, 0);
    // A container whose command is the very program that starts it.
    spec.argv = vec!["/proc/self/exe".into(), "--version".into()];
    let before = std::fs::read(crate::support::PROGRAM).unwrap();
    let _ = bench.run(&spec);
    assert!(std::fs::read(crate::support::PROGRAM).unwrap() == before);
    let mut spec =
        bench.spec("for p in /proc/[0-9]*; do readlink $p/exe; done | grep -v busybox; true");
    (spec.uid, spec.gid) = (0, 0);
    assert_eq!(bench.says(&spec), "");
}

#[test]
fn refuses_nonsense_by_name() {
    let bench = Bench::new();
    let mut spec = bench.spec("true");
    spec.cwd = "/a/../../etc".into();
    let error = bench.run(&spec).err().unwrap();
    assert!(error.to_string().contains("/a/../../etc"), "{error}");
    let mut spec = bench.spec("true");
    spec.lower = vec!["/no/such/layer".into()];
    let error = bench.run(&spec).err().unwrap();
    assert!(error.to_string().contains("/no/such/layer"), "{error}");
}
