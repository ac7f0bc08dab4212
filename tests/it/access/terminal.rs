//! A login typed at a terminal: who looks over the shoulder sees the user, and no password.

use std::{
    io::{Read as _, Write as _},
    process::{Child, Command, Stdio},
};

use rustix::{
    process::{Signal, kill_process},
    pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt},
    termios::{Termios, tcgetattr, tcgetpgrp},
};

use super::{PASSWORD, USER, User, private_registry};

/// A terminal, and a `longshore login` that is asked for everything there.
struct Login {
    child: Child,
    terminal: fs_err::File,
    /// The terminal before anybody was asked.
    before: Termios,
    seen: String,
}

impl Login {
    fn begin(user: &User, host: &str) -> Self {
        let terminal = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&terminal).unwrap();
        unlockpt(&terminal).unwrap();
        let name = ptsname(&terminal, Vec::new()).unwrap().into_string().unwrap();
        let terminal = fs_err::File::from_parts(std::fs::File::from(terminal), "terminal");
        let before = tcgetattr(&terminal).unwrap();
        let end = || Stdio::from(std::fs::OpenOptions::new().read(true).write(true).open(&name).unwrap());

        // A session of its own, so that this terminal is its; and no signal is ignored because the tests' caller does.
        let inner = user.command(env!("CARGO_BIN_EXE_longshore"));
        let mut command = Command::new("setsid");
        command
            .args(["--ctty", "--wait", "env", "--default-signal=HUP,INT,TERM"])
            .arg(inner.get_program())
            .args(inner.get_args());
        command.env_clear().envs(inner.get_envs().filter_map(|(key, value)| Some((key, value?))));
        command.args(["login", host]).stdin(end()).stdout(end()).stderr(end());
        Self { child: command.spawn().unwrap(), terminal, before, seen: String::new() }
    }

    /// Waits until `words` are seen, and types.
    fn answer(&mut self, words: &str, typed: &str) {
        let mut byte = [0];
        // A terminal that everybody has left gives an error.
        while !self.seen.ends_with(words) && self.terminal.read(&mut byte).is_ok_and(|read| read > 0) {
            self.seen.push(char::from(byte[0]));
        }
        assert!(self.seen.ends_with(words), "`{words}` is not in: {}", self.seen);
        self.terminal.write_all(typed.as_bytes()).unwrap();
    }
}

#[test]
fn a_password_is_asked_for_and_not_seen() {
    let user = User::new();
    let registry = private_registry(user.home(), "");
    let mut login = Login::begin(&user, registry.host());
    login.answer(": ", &format!("{USER}\n"));
    login.answer("Password: ", &format!("{PASSWORD}\n"));
    login.answer("auth.json`\r\n", "");
    assert!(login.child.wait().unwrap().success());
    let seen = login.seen;
    assert!(seen.starts_with(&format!("User for {}: {USER}\r\n", registry.host())), "{seen}");
    assert!(seen.contains(&format!("logged in to {} as {USER}", registry.host())), "{seen}");
    assert!(!seen.contains(PASSWORD), "{seen}");
    user.push(&format!("{}/demo:1", registry.host()), &[]).pushed();
}

#[test]
fn who_types_no_password_has_the_terminal_as_it_was() {
    let user = User::new();
    for (typed, words, code) in
        [("half\u{3}", "interrupted\r\n", 130), ("\n", "empty\r\n", 2), ("\u{4}", "empty\r\n", 2)]
    {
        let mut login = Login::begin(&user, "localhost:1");
        login.answer(": ", &format!("{USER}\n"));
        login.answer("Password: ", typed);
        login.answer(words, "");
        assert_eq!(login.child.wait().unwrap().code(), Some(code), "{}", login.seen);
        let after = tcgetattr(&login.terminal).unwrap();
        assert_eq!(login.before.local_modes, after.local_modes);
        assert!(!login.seen.contains("half"), "{}", login.seen);
    }
}

#[test]
fn a_signal_at_the_prompt_leaves_the_terminal_as_it_was() {
    let user = User::new();
    for (signal, code) in [(Signal::HUP, 129), (Signal::INT, 130), (Signal::TERM, 143)] {
        let mut login = Login::begin(&user, "localhost:1");
        login.answer(": ", &format!("{USER}\n"));
        login.answer("Password: ", "half");
        // The one that the terminal speaks with, and not `setsid` that waits for it.
        kill_process(tcgetpgrp(&login.terminal).unwrap(), signal).unwrap();
        login.answer("interrupted\r\n", "");
        assert_eq!(login.child.wait().unwrap().code(), Some(code), "{}", login.seen);
        let after = tcgetattr(&login.terminal).unwrap();
        assert_eq!(login.before.local_modes, after.local_modes, "{signal:?}");
        assert!(!login.seen.contains("half"), "{}", login.seen);
    }
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
