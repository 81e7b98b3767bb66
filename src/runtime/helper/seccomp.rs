//! The system call filter of every container, comparable with what container engines apply by default.
//!
//! Three programs are stacked; the strictest answer counts. Calls that act on the whole machine are refused with
//! EPERM; calls for which libraries have a fallback, and calls newer than this list, with ENOSYS, so that the
//! fallback is taken.

use std::collections::BTreeMap;

use nix::libc;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, sock_filter,
};

/// The highest system call number that this list was made with (Linux 6.13, both architectures).
const NEWEST_KNOWN: u32 = 466;

/// What acts on the machine rather than on the process.
const REFUSED: &[libc::c_long] = &[
    libc::SYS_acct,
    libc::SYS_add_key,
    libc::SYS_adjtimex,
    libc::SYS_bpf,
    libc::SYS_clock_adjtime,
    libc::SYS_clock_settime,
    libc::SYS_delete_module,
    libc::SYS_fanotify_init,
    libc::SYS_finit_module,
    libc::SYS_init_module,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    libc::SYS_io_uring_setup,
    libc::SYS_kcmp,
    libc::SYS_kexec_file_load,
    libc::SYS_kexec_load,
    libc::SYS_keyctl,
    libc::SYS_lookup_dcookie,
    libc::SYS_mount,
    libc::SYS_nfsservctl,
    libc::SYS_open_by_handle_at,
    libc::SYS_perf_event_open,
    libc::SYS_pidfd_getfd,
    libc::SYS_pivot_root,
    libc::SYS_process_madvise,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_ptrace,
    libc::SYS_quotactl,
    libc::SYS_quotactl_fd,
    libc::SYS_reboot,
    libc::SYS_request_key,
    libc::SYS_setdomainname,
    libc::SYS_sethostname,
    libc::SYS_setns,
    libc::SYS_settimeofday,
    libc::SYS_swapoff,
    libc::SYS_swapon,
    libc::SYS_syslog,
    libc::SYS_umount2,
    libc::SYS_userfaultfd,
    libc::SYS_vhangup,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_ioperm,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_iopl,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_sysfs,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_uselib,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_ustat,
    #[cfg(target_arch = "x86_64")]
    libc::SYS__sysctl,
];

/// What libraries do without when the kernel does not know it. The arguments of `clone3` are behind a pointer that
/// a filter cannot follow.
const UNKNOWN: &[libc::c_long] = &[
    libc::SYS_clone3,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fsopen,
    libc::SYS_fspick,
    libc::SYS_mount_setattr,
    libc::SYS_move_mount,
    libc::SYS_open_tree,
];

/// Flags of `clone` and `unshare` that make namespaces.
const NEW_NAMESPACE: [i32; 7] = [
    libc::CLONE_NEWNS,
    libc::CLONE_NEWCGROUP,
    libc::CLONE_NEWUTS,
    libc::CLONE_NEWIPC,
    libc::CLONE_NEWUSER,
    libc::CLONE_NEWPID,
    libc::CLONE_NEWNET,
];

/// `ioctl` requests that type into or reconfigure a terminal: TIOCSTI, TIOCLINUX.
const TERMINAL_REQUESTS: [u64; 2] = [0x5412, 0x541c];

/// Socket families that reach the kernel's crypto or the hypervisor.
const REFUSED_FAMILIES: [i32; 2] = [libc::AF_ALG, libc::AF_VSOCK];

/// Execution domains that programs may ask for: Linux, 32-bit Linux, each also with a 2.6 version number, and the
/// question which one is in force.
const PERSONALITIES: [u64; 5] = [0x0, 0x8, 0x2_0000, 0x2_0008, 0xffff_ffff];

/// The programs, in the order in which they are installed.
pub fn programs() -> Result<Vec<BpfProgram>, String> {
    Ok(vec![
        newest_known(),
        compile(unknown(), libc::ENOSYS)?,
        compile(refused()?, libc::EPERM)?,
    ])
}

fn compile(rules: BTreeMap<i64, Vec<SeccompRule>>, errno: i32) -> Result<BpfProgram, String> {
    let arch = std::env::consts::ARCH
        .try_into()
        .map_err(|error| format!("{error}"))?;
    SeccompFilter::new(
        rules,
        SeccompAction::Allow,
        SeccompAction::Errno(errno.unsigned_abs()),
        arch,
    )
    .and_then(TryInto::try_into)
    .map_err(|error| error.to_string())
}

/// Answers ENOSYS to every number above [`NEWEST_KNOWN`], the x32 calls among them.
fn newest_known() -> BpfProgram {
    let instruction = |code: u32, jt, jf, k| sock_filter {
        code: code as u16,
        jt,
        jf,
        k,
    };
    let errno = libc::SECCOMP_RET_ERRNO | libc::ENOSYS.unsigned_abs();
    vec![
        // The number is the first field of `struct seccomp_data`.
        instruction(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, 0),
        instruction(
            libc::BPF_JMP | libc::BPF_JGT | libc::BPF_K,
            0,
            1,
            NEWEST_KNOWN,
        ),
        instruction(libc::BPF_RET | libc::BPF_K, 0, 0, errno),
        instruction(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ALLOW),
    ]
}

fn unknown() -> BTreeMap<i64, Vec<SeccompRule>> {
    UNKNOWN.iter().map(|call| (*call, Vec::new())).collect()
}

fn refused() -> Result<BTreeMap<i64, Vec<SeccompRule>>, String> {
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> =
        REFUSED.iter().map(|call| (*call, Vec::new())).collect();
    for call in [libc::SYS_clone, libc::SYS_unshare] {
        let flags = NEW_NAMESPACE.map(|flag| u64::from(flag.unsigned_abs()));
        let any = flags
            .into_iter()
            .map(|flag| argument(0, SeccompCmpOp::MaskedEq(flag), flag));
        rules.insert(call, alternatives(any)?);
    }
    let requests = TERMINAL_REQUESTS.map(|request| argument(1, SeccompCmpOp::Eq, request));
    rules.insert(libc::SYS_ioctl, alternatives(requests)?);
    let families = REFUSED_FAMILIES
        .map(|family| argument(0, SeccompCmpOp::Eq, u64::from(family.unsigned_abs())));
    rules.insert(libc::SYS_socket, alternatives(families)?);
    let none_of = PERSONALITIES
        .map(|persona| argument(0, SeccompCmpOp::Ne, persona))
        .into_iter()
        .collect::<Result<_, _>>()?;
    let rule = SeccompRule::new(none_of).map_err(|error| error.to_string())?;
    rules.insert(libc::SYS_personality, vec![rule]);
    Ok(rules)
}

fn argument(index: u8, operator: SeccompCmpOp, value: u64) -> Result<SeccompCondition, String> {
    SeccompCondition::new(index, SeccompCmpArgLen::Dword, operator, value)
        .map_err(|error| error.to_string())
}

fn alternatives(
    conditions: impl IntoIterator<Item = Result<SeccompCondition, String>>,
) -> Result<Vec<SeccompRule>, String> {
    conditions
        .into_iter()
        .map(|condition| SeccompRule::new(vec![condition?]).map_err(|error| error.to_string()))
        .collect()
}

#[cfg(test)]
mod tests {
    #[test]
    fn compiles() {
        let programs = super::programs().unwrap();
        assert_eq!(programs.len(), 3);
        assert!(programs.iter().all(|program| program.len() < 4096));
    }
}
