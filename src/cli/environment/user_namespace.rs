//! Running again inside the user namespace of rootless podman, where the files of all users of the images can be
//! read.
//!
//! Inside, the user is root, which would change every default place. So the process is told who it really is, by
//! the variable that also keeps it from running again.

use std::{
    env,
    ffi::OsString,
    os::unix::{fs::MetadataExt as _, process::CommandExt as _},
    path::Path,
    process::{Command, Stdio},
};

use longshore::{Error, Result};

/// Say who the user of the process is outside the user namespace: ours, and that of `podman unshare`.
pub(in crate::cli) const OUTER_UIDS: [&str; 2] = ["LONGSHORE_OUTER_UID", "_CONTAINERS_ROOTLESS_UID"];

/// What makes such a namespace, the likeliest first.
const WAYS: [&[&str]; 2] = [&["podman", "unshare"], &["unshare", "--map-auto", "--map-root-user", "--"]];

/// Runs this process again, if `store` is the user's own and it is outside. Where nothing makes a namespace it
/// goes on: an image whose files all belong to the user can be read.
pub(in crate::cli) fn enter(store: &Path, inside: bool) -> Result<()> {
    let uid = rustix::process::geteuid().as_raw();
    let own = fs_err::metadata(store).is_ok_and(|metadata| metadata.uid() == uid);
    if inside || uid == 0 || !own {
        return Ok(());
    }
    let Some(way) = WAYS.into_iter().find(|way| works(way)) else { return Ok(()) };
    let failed = |error| Error::local("running again inside a user namespace").because(error);
    let program = env::current_exe().map_err(failed)?;
    let args = env::args_os().skip(1);
    Err(failed(command(way, program.into(), args).env(OUTER_UIDS[0], uid.to_string()).exec()))
}

/// Returns whether a way leads into a namespace that has more users than one. Without subordinate users podman
/// makes one all the same, where no more can be read than outside.
fn works(way: &[&str]) -> bool {
    let mut probe = command(way, "cat".into(), ["/proc/self/uid_map".into()]);
    let map = probe.stdin(Stdio::null()).output();
    map.is_ok_and(|map| map.status.success() && users(&String::from_utf8_lossy(&map.stdout)) > 1)
}

/// Returns the number of users in a `uid_map`, whose lines end in how many follow each other.
fn users(map: &str) -> u64 {
    map.lines().filter_map(|line| line.split_ascii_whitespace().nth(2)?.parse::<u64>().ok()).sum()
}

fn command(way: &[&str], program: OsString, args: impl IntoIterator<Item = OsString>) -> Command {
    let mut command = Command::new(way[0]);
    command.args(&way[1..]).arg(program).args(args);
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_namespace_of_one_user_is_of_no_use() {
        assert_eq!(users("         0       1000          1\n         1     100000      65536\n"), 65537);
        assert_eq!(users("0 1000 1\n"), 1);
        assert_eq!(users("cannot re-exec process"), 0);
    }

    #[test]
    fn the_command_stays_what_it_was() {
        let args = ["push".into(), "-q".into()];
        let command = command(WAYS[1], "/bin/longshore".into(), args);
        let words: Vec<_> = command.get_args().collect();
        assert_eq!(words, ["--map-auto", "--map-root-user", "--", "/bin/longshore", "push", "-q"]);
    }
}
