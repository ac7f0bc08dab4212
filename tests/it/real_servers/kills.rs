//! `kill -9` in mid-push, of the registry or of longshore. Between two chunks nothing is lost by it.
//!
//! In the middle of a chunk it is otherwise: distribution keeps what came of one that broke off, and then disowns the
//! upload, since it is longer than the state that the registry signed and gave to the client. So all of this blob is
//! sent again, and nothing else.

use std::path::Path;

use super::{CHUNK, LARGE, MIB, arguments, assert_arrived, assert_holds, is_possible};
use crate::{
    support::{
        docker_registry::DockerRegistry,
        longshore::{Longshore, Run},
        relay::Relay,
    },
    wire::image::{Archive, Layout},
};

/// All that is sent beside layers.
const WORDS: usize = MIB / 4;

/// Sockets take so much of a body before an answer is heard that came before its end.
const BUFFERED: usize = 8 * MIB;

/// When to kill: one chunk of the layer is acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Moment {
    /// Nothing of the next one has arrived.
    BetweenChunks,
    /// Half of the next one has.
    InChunk,
}

impl Moment {
    /// Returns how many bytes of a layer are sent until then.
    const fn sent(self) -> usize {
        match self {
            Self::BetweenChunks => CHUNK,
            Self::InChunk => CHUNK + CHUNK / 2,
        }
    }

    fn hold(self, relay: &Relay) {
        match self {
            Self::BetweenChunks => relay.hold_second("PATCH"),
            Self::InChunk => relay.hold_after(self.sent() as u64),
        }
    }
}

/// Kills the registry in the middle of a push of one large layer; returns how many bytes were sent in all.
fn kill_registry(settings: &str, moment: Moment) -> u64 {
    let mut registry = DockerRegistry::start_with(settings, "");
    let relay = Relay::start(registry.host());
    let layout = Layout::of(&[LARGE]);
    moment.hold(&relay);
    let running = Longshore::new().start(arguments(layout.path(), relay.host(), "demo"));
    relay.wait_until_held();
    registry.wait_for("PATCH", 202);
    registry.kill();
    registry.restart();
    relay.cut();
    let run = running.finish();
    let sent = relay.sent();
    assert_arrived(&layout, &run, relay.host(), "demo");
    sent
}

#[test]
fn a_registry_that_is_killed_between_chunks_goes_on() {
    if !is_possible() {
        return;
    }
    let sent = kill_registry(", secret: same", Moment::BetweenChunks);
    assert!(sent <= (LARGE + WORDS) as u64, "{sent}");
}

#[test]
fn a_registry_that_has_lost_the_upload_is_sent_it_anew() {
    if !is_possible() {
        return;
    }
    // Without a secret in its configuration it has another one each time, and knows no upload again.
    for (settings, moment) in [("", Moment::BetweenChunks), (", secret: same", Moment::InChunk)] {
        let sent = kill_registry(settings, moment);
        // A chunk that had not left yet is sent, and refused in its middle.
        assert!(sent <= (LARGE + moment.sent() + BUFFERED) as u64, "{settings} {moment:?}: {sent}");
    }
}

/// Kills longshore in the middle of a push, and pushes again; returns what came of that and how many bytes the
/// second run sent.
fn kill_longshore(source: &Path, registry: &DockerRegistry, moment: Moment) -> (Run, u64) {
    let relay = Relay::start(registry.host());
    let user = Longshore::new();
    moment.hold(&relay);
    let running = user.start(arguments(source, relay.host(), "demo"));
    relay.wait_until_held();
    registry.wait_for("PATCH", 202);
    running.kill();
    relay.cut();
    let before = relay.sent();
    let run = user.run(arguments(source, relay.host(), "demo"));
    let sent = relay.sent() - before;
    // It is the registry that is asked what arrived.
    (Run { stdout: run.stdout.replace(relay.host(), registry.host()), ..run }, sent)
}

#[test]
fn a_stored_layer_goes_on_in_the_next_run() {
    if !is_possible() {
        return;
    }
    for (moment, most) in [(Moment::BetweenChunks, LARGE - CHUNK), (Moment::InChunk, LARGE)] {
        let (registry, layout) = (DockerRegistry::start(), Layout::of(&[LARGE]));
        let (run, sent) = kill_longshore(layout.path(), &registry, moment);
        assert_arrived(&layout, &run, registry.host(), "demo");
        assert!(sent <= (most + WORDS) as u64, "{moment:?}: {sent}");
    }
}

#[test]
fn a_layer_that_is_encoded_again_goes_on_in_the_next_run() {
    if !is_possible() {
        return;
    }
    for (moment, most) in [(Moment::BetweenChunks, LARGE - CHUNK), (Moment::InChunk, LARGE)] {
        let (registry, archive) = (DockerRegistry::start(), Archive::of(&[LARGE]));
        let source = archive.path();
        let (run, sent) = kill_longshore(&source, &registry, moment);
        assert_holds(&archive.layers, &run, registry.host(), "demo");
        assert!(sent <= (most + WORDS) as u64, "{moment:?}: {sent}");
    }
}
