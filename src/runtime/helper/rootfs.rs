//! The container's root file system, and the small root that libcontainer works in.
//!
//! ```text
//! <stage>/          tmpfs; becomes the inner helper's root, so that nothing of the host stays in sight
//!   rootfs/         the overlay
//!   l/0 l/1 …       links to the lower folders: the overlay's option string is one page (4 KiB), names must be short
//!   etc/            lowest-effort /etc files of a run, the topmost lower folder
//!   m/0 m/1 …       the caller's folders
//!   dev/ proc/ sys/ what libcontainer binds from; sys/fs/cgroup is empty, so that it finds no group to touch
//!   bundle/ state/  libcontainer's own
//! ```

use std::fs::{self, File};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use nix::sys::statvfs::{FsFlags, statvfs};
use nix::unistd::{chdir, pivot_root};

use super::Step;
use crate::runtime::Network;
use crate::runtime::{ContainerSpec, Privileges, RuntimeError};

/// Devices of every container; bound from the host because a user namespace cannot make device nodes.
const DEVICES: [&str; 6] = ["null", "zero", "full", "random", "urandom", "tty"];

/// Builds the stage and makes it this process's root. `folder` holds upper and work folders where the caller named none.
pub fn build(stage: &Path, folder: &Path, spec: &ContainerSpec) -> Result<(), RuntimeError> {
    fs::create_dir_all(stage).step("make the stage")?;
    tmpfs(stage, "mode=0755")?;
    for name in [
        "rootfs", "l", "m", "dev", "proc", "sys", "bundle", "state", "etc", "tmp",
    ] {
        fs::create_dir(stage.join(name)).step("make the stage")?;
    }
    overlay(stage, folder, spec)?;
    for (number, wanted) in spec.mounts.iter().enumerate() {
        let point = stage.join("m").join(number.to_string());
        make_point(&wanted.host, &point)?;
        bind(&wanted.host, &point, wanted.writable)?;
    }
    for device in DEVICES {
        let point = stage.join("dev").join(device);
        File::create(&point).step("make the stage")?;
        bind(&Path::new("/dev").join(device), &point, true)?;
    }
    kernel_file_systems(stage, spec.network)?;
    leave_host(stage)?;
    make_cwd(spec)
}

fn tmpfs(target: &Path, options: &str) -> Result<(), RuntimeError> {
    let flags = MsFlags::MS_NOSUID;
    mount(Some("tmpfs"), target, Some("tmpfs"), flags, Some(options))
        .step(format!("mount a tmpfs on {}", target.display()))
}

/// Mounts the layers on `rootfs`. Relative names, so that a hundred fit into the option page.
fn overlay(stage: &Path, folder: &Path, spec: &ContainerSpec) -> Result<(), RuntimeError> {
    let links = stage.join("l");
    let mut names = Vec::new();
    for (number, lower) in spec.lower.iter().enumerate() {
        symlink(lower, links.join(number.to_string())).step("link the lower folders")?;
        fs::read_dir(lower).step(format!("open the layer {}", lower.display()))?;
        names.push(number.to_string());
    }
    if spec.privileges == Privileges::Run || names.is_empty() {
        etc_files(&stage.join("etc"), spec)?;
        symlink("../etc", links.join("e")).step("link the lower folders")?;
        names.push("e".into());
    }
    // The option lists the topmost first.
    names.reverse();
    let (upper, work) = match &spec.upper {
        Some(upper) => (upper.clone(), work_of(upper)),
        None => (folder.join("upper"), folder.join("work")),
    };
    for path in [&upper, &work] {
        fs::create_dir_all(path).step(format!("make {}", path.display()))?;
    }
    if spec.upper.is_none() {
        fs::set_permissions(&upper, fs::Permissions::from_mode(0o755)).step("set a mode")?;
    }
    symlink(upper, links.join("u")).step("link the upper folder")?;
    symlink(work, links.join("w")).step("link the work folder")?;
    // userxattr: the only attributes that a user namespace may write. volatile: what is below is thrown away or read
    // at once, never relied on after a crash.
    let options = format!(
        "userxattr,volatile,upperdir=u,workdir=w,lowerdir={}",
        names.join(":")
    );
    chdir(&links).step("enter the stage")?;
    mount(
        Some("overlay"),
        "../rootfs",
        Some("overlay"),
        MsFlags::MS_NODEV,
        Some(options.as_str()),
    )
    .step(format!("mount an overlay of {} layers", spec.lower.len()))
}

/// The overlay's work folder beside a kept upper folder; both must be on one file system.
pub fn work_of(upper: &Path) -> PathBuf {
    let mut name = upper.as_os_str().to_owned();
    name.push(".work");
    PathBuf::from(name)
}

/// Names: a run resolves its own host name and, on the host's network, what the host resolves.
fn etc_files(root: &Path, spec: &ContainerSpec) -> Result<(), RuntimeError> {
    let etc = root.join("etc");
    fs::create_dir(&etc).step("make /etc files")?;
    let own = format!(
        "127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n127.0.1.1 {}\n",
        spec.hostname
    );
    let mut files = vec![("hostname", format!("{}\n", spec.hostname).into_bytes())];
    match spec.network {
        Network::None => {
            files.push(("hosts", own.into_bytes()));
            files.push(("resolv.conf", Vec::new()));
        }
        Network::Host => {
            let host = |path: &str| fs::read(path).ok();
            files.push(("hosts", host("/etc/hosts").unwrap_or(own.into_bytes())));
            files.push(("resolv.conf", host("/etc/resolv.conf").unwrap_or_default()));
        }
    }
    for (name, content) in files {
        let path = etc.join(name);
        fs::write(&path, content).step("make /etc files")?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).step("make /etc files")?;
    }
    for path in [root, &etc] {
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).step("make /etc files")?;
    }
    Ok(())
}

fn make_point(like: &Path, point: &Path) -> Result<(), RuntimeError> {
    let is_folder = fs::metadata(like)
        .step(format!("open {}", like.display()))?
        .is_dir();
    if is_folder {
        fs::create_dir(point).step("make a mount point")
    } else {
        File::create(point).map(drop).step("make a mount point")
    }
}

/// Binds `source` on `target`, without set-uid programs, and read-only unless `writable`.
pub fn bind(source: &Path, target: &Path, writable: bool) -> Result<(), RuntimeError> {
    let none = None::<&str>;
    mount(
        Some(source),
        target,
        none,
        MsFlags::MS_BIND | MsFlags::MS_REC,
        none,
    )
    .step(format!("bind {}", source.display()))?;
    // A user namespace may add restrictions to a mount that it inherited and must keep those that are there.
    let kept = statvfs(target).step("look at a mount")?.flags();
    let mut flags = MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_NOSUID;
    for (there, keep) in [
        (FsFlags::ST_RDONLY, MsFlags::MS_RDONLY),
        (FsFlags::ST_NODEV, MsFlags::MS_NODEV),
        (FsFlags::ST_NOEXEC, MsFlags::MS_NOEXEC),
        (FsFlags::ST_NOATIME, MsFlags::MS_NOATIME),
        (FsFlags::ST_NODIRATIME, MsFlags::MS_NODIRATIME),
        (FsFlags::ST_RELATIME, MsFlags::MS_RELATIME),
    ] {
        flags.set(keep, kept.contains(there));
    }
    if !writable {
        flags |= MsFlags::MS_RDONLY;
    }
    mount(none, target, none, flags, none).step(format!("restrict {}", target.display()))
}

/// `/proc` for libcontainer; `/sys` where the network namespace is our own; nothing to find in `/sys/fs/cgroup`.
fn kernel_file_systems(stage: &Path, network: Network) -> Result<(), RuntimeError> {
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    let none = None::<&str>;
    mount(Some("proc"), &stage.join("proc"), Some("proc"), flags, none).step(
        "mount /proc (not possible where parts of the machine's own /proc are hidden, as in containers of other engines)",
    )?;
    let sys = stage.join("sys");
    if network == Network::None {
        unshare(CloneFlags::CLONE_NEWNET).step("make a network namespace")?;
        loopback_up().step("start the loopback interface")?;
        // Refused where the machine hides parts of its own /sys; a container can do without.
        let _ = mount(
            Some("sysfs"),
            &sys,
            Some("sysfs"),
            flags | MsFlags::MS_RDONLY,
            none,
        );
    }
    let groups = sys.join("fs/cgroup");
    if !groups.exists() {
        fs::create_dir_all(&groups).step("make the stage")?;
    }
    tmpfs(&groups, "mode=0555,size=4k")
}

/// Whether `/sys` is the kernel's, in the stage as root.
pub fn has_sysfs() -> bool {
    Path::new("/sys/kernel").exists()
}

/// Sets IFF_UP on `lo` (netdevice(7)).
fn loopback_up() -> nix::Result<()> {
    use nix::libc;
    use std::os::fd::AsRawFd;
    let socket = File::from(std::os::fd::OwnedFd::from(
        std::net::UdpSocket::bind("0.0.0.0:0").map_err(|_| nix::errno::Errno::ENETDOWN)?,
    ));
    // SAFETY: all-zero bytes are a valid `ifreq`; the kernel reads its name and flags and keeps no reference.
    #[allow(unsafe_code)]
    let result = unsafe {
        let mut request: libc::ifreq = std::mem::zeroed();
        request.ifr_name[0] = b'l' as libc::c_char;
        request.ifr_name[1] = b'o' as libc::c_char;
        request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short;
        libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &request)
    };
    nix::errno::Errno::result(result).map(|_| ())
}

/// Makes the stage the root and drops the host's mounts from sight.
fn leave_host(stage: &Path) -> Result<(), RuntimeError> {
    chdir(stage).step("enter the stage")?;
    pivot_root(".", ".").step("make the stage the root")?;
    umount2(".", MntFlags::MNT_DETACH).step("leave the host's mounts")?;
    chdir("/").step("enter the stage")
}

/// Makes the working folder if it is missing; links in the image are followed within the image.
fn make_cwd(spec: &ContainerSpec) -> Result<(), RuntimeError> {
    use rustix::fs::{Mode, OFlags, ResolveFlags};
    let step = || format!("make the working folder {}", spec.cwd);
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = rustix::fs::open("/rootfs", flags, Mode::empty()).step(step())?;
    let within = |path: &Path| {
        rustix::fs::openat2(
            &root,
            path,
            flags,
            Mode::empty(),
            ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS,
        )
    };
    let mut parent = within(Path::new("/")).step(step())?;
    let mut path = PathBuf::from("/");
    for name in Path::new(&spec.cwd).components().skip(1) {
        path.push(name);
        parent = match within(&path) {
            Ok(folder) => folder,
            Err(rustix::io::Errno::NOENT) => {
                let name = name.as_os_str();
                rustix::fs::mkdirat(&parent, name, Mode::from_raw_mode(0o755)).step(step())?;
                let made = within(&path).step(step())?;
                let (uid, gid) = (
                    rustix::process::Uid::from_raw(spec.uid),
                    rustix::process::Gid::from_raw(spec.gid),
                );
                let empty = rustix::fs::AtFlags::EMPTY_PATH;
                rustix::fs::chownat(&made, "", Some(uid), Some(gid), empty).step(step())?;
                made
            }
            Err(error) => return Err(RuntimeError::setup(step(), error)),
        };
    }
    Ok(())
}
