//! A login typed at a terminal: who looks over the shoulder sees the user, and no password.

use std::{
    io::{Read as _, Write as _},
    process::{Command, Stdio},
};

use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};

use super::{PASSWORD, USER, User, private_registry};

#[test]
fn a_password_is_asked_for_and_not_seen() {
    let user = User::new();
    let registry = private_registry(user.home(), "");
    let terminal = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    grantpt(&terminal).unwrap();
    unlockpt(&terminal).unwrap();
    let name = ptsname(&terminal, Vec::new()).unwrap().into_string().unwrap();
    let mut terminal = fs_err::File::from_parts(std::fs::File::from(terminal), "terminal");
    let end = || Stdio::from(std::fs::OpenOptions::new().read(true).write(true).open(&name).unwrap());

    // A session of its own, so that this terminal is its.
    let inner = user.command(env!("CARGO_BIN_EXE_longshore"));
    let mut command = Command::new("setsid");
    command.args(["--ctty", "--wait"]).arg(inner.get_program()).args(inner.get_args());
    command.env_clear().envs(inner.get_envs().filter_map(|(key, value)| Some((key, value?))));
    command.args(["login", registry.host()]).stdin(end()).stdout(end()).stderr(end());
    let mut child = command.spawn().unwrap();
    drop(command);

    let mut seen = String::new();
    let mut until = |seen: &mut String, words: &str| {
        let mut byte = [0];
        // A terminal that everybody has left gives an error.
        while !seen.ends_with(words) && terminal.read(&mut byte).is_ok_and(|read| read > 0) {
            seen.push(char::from(byte[0]));
        }
        assert!(seen.ends_with(words), "`{words}` is not in: {seen}");
        terminal.try_clone().unwrap()
    };
    until(&mut seen, ": ").write_all(format!("{USER}\n").as_bytes()).unwrap();
    until(&mut seen, "Password: ").write_all(format!("{PASSWORD}\n").as_bytes()).unwrap();
    until(&mut seen, "auth.json`\r\n");
    assert!(child.wait().unwrap().success());
    assert!(seen.starts_with(&format!("User for {}: {USER}\r\n", registry.host())), "{seen}");
    assert!(seen.contains(&format!("logged in to {} as {USER}", registry.host())), "{seen}");
    assert!(!seen.contains(PASSWORD), "{seen}");
    user.push(&format!("{}/demo:1", registry.host()), &[]).pushed();
}

#[test]
fn without_a_terminal_nothing_is_asked() {
    let user = User::new();
    let mut command = Command::new("setsid");
    let inner = user.command(env!("CARGO_BIN_EXE_longshore"));
    command.arg("--wait").arg(inner.get_program()).args(inner.get_args());
    command.env_clear().envs(inner.get_envs().filter_map(|(key, value)| Some((key, value?))));
    let run = super::fed(command.args(["login", "--username", USER, "localhost:1"]), "");
    run.said(2, &["no terminal", "`--username USER --password-stdin`"]);
}
