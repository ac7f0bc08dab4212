//! Random registries and random troubles: whatever happens, a session must end, and what it then calls
//! uploaded must be the blob.

use std::ops::Range;

use proptest::{collection::vec, option, prelude::*};

use super::{
    model::{Manners, Ranges, Registry, Trouble},
    *,
};
use crate::error::Error;

/// More than any of these uploads may take.
const MOST_ACTIONS: usize = 10_000;

#[derive(Clone, Debug)]
struct Case {
    size: u64,
    /// So many bytes are written at a time; `None` if all are from the beginning.
    growth: Option<u64>,
    settings: Settings,
    manners: Manners,
    troubles: Vec<Trouble>,
    /// The troubles begin again when they are over.
    for_ever: bool,
    /// After so many requests the process is killed, before it hears the answer, and another one goes on.
    killed_after: Option<usize>,
}

/// Plays a case to its end.
fn push(case: &Case) -> (Result<Outcome, Error>, Registry) {
    let honest = !Ranges::LYING.contains(&case.manners.ranges)
        && !case
            .troubles
            .iter()
            .any(|trouble| matches!(trouble, Trouble::Lie(_) | Trouble::Answer(200..=299 | 416)));
    let mut registry = Registry::new(case.size, case.manners.clone(), honest);
    let mut troubles: Box<dyn Iterator<Item = &Trouble>> =
        if case.for_ever { Box::new(case.troubles.iter().cycle()) } else { Box::new(case.troubles.iter()) };
    let complete = Spool::complete(Digest::of(b"blob"), case.size);
    let mut spool = if case.growth.is_some() { Spool::default() } else { complete.clone() };
    let mut session = Session::new(case.settings.clone());
    let mut too_large = u64::MAX;
    let (mut requests, mut noted) = (0, None);
    for _ in 0..MOST_ACTIONS {
        session = match session.next(&spool) {
            Action::Authenticate | Action::Wait { .. } => session.on_waited(),
            Action::Done(outcome) => {
                assert_eq!(session.acknowledged(), case.size);
                return (Ok(outcome), registry);
            }
            Action::Fail(error) => return (Err(error), registry),
            Action::More => {
                assert!(spool.end.is_none(), "waits for more where nothing more comes");
                spool.written += case.growth.unwrap_or(1);
                if spool.written >= case.size {
                    spool = complete.clone();
                }
                session
            }
            Action::Send(request) => {
                if let Request::Patch { range, .. } = &request {
                    check(case, range, spool.written, too_large);
                    assert_eq!(range.start, session.acknowledged());
                }
                let outcome = registry.handle(&request, troubles.next().unwrap_or(&Trouble::None));
                requests += 1;
                if case.killed_after == Some(requests) {
                    too_large = u64::MAX;
                    spool = if case.growth.is_some() { Spool::default() } else { complete.clone() };
                    let settings = case.settings.clone();
                    session = match noted.take() {
                        Some(held) => Session::resume(settings, held),
                        None => Session::new(settings),
                    };
                    continue;
                }
                let before = session.acknowledged();
                let session = match outcome {
                    Ok(reply) => {
                        if let (413, Request::Patch { range, .. }) = (reply.status, &request) {
                            too_large = too_large.min(range.end - range.start);
                        }
                        session.on_reply(reply)
                    }
                    Err(fault) => session.on_fault(fault),
                };
                if session.acknowledged() != before {
                    noted = session.held();
                }
                session
            }
        };
    }
    panic!("it does not end");
}

fn check(case: &Case, range: &Range<u64>, written: u64, too_large: u64) {
    assert!(range.start < range.end && range.end <= written);
    let length = range.end - range.start;
    // What the user wants gives way to what the registry demands.
    let wanted = case.settings.chunk_size.filter(|_| case.manners.minimum.is_none());
    let cap = wanted.into_iter().chain(case.manners.maximum).min().unwrap_or(u64::MAX);
    assert!(length <= cap, "a chunk is over the cap");
    assert!(length < too_large, "a size that was refused is tried again");
}

fn manners(scale: u64, ranges: impl Strategy<Value = Ranges>) -> impl Strategy<Value = Manners> {
    (
        option::of((4..40_u64, 10..80_u64)),
        option::of(2..30_u64),
        any::<[bool; 6]>(),
        ranges,
        prop_oneof![Just(201), Just(202), Just(401), Just(404)],
    )
        .prop_map(
            move |(
                bounds,
                body_limit,
                [equal_parts, keeps, offsets, locations, status, refuses_whole],
                ranges,
                mount,
            )| {
                // Where nothing tells the offset but a refusal, wrong ones have to be refused.
                let needs_refusals = ranges == Ranges::Words || !status || equal_parts || locations;
                Manners {
                    minimum: bounds.map(|(minimum, _)| minimum * scale),
                    maximum: bounds.map(|(minimum, more)| (minimum + more) * scale),
                    body_limit: body_limit
                        .map(|limit| limit * scale)
                        .filter(|_| scale > 1 && bounds.is_none()),
                    equal_parts,
                    keeps_partial: keeps && !equal_parts,
                    checks_offset: offsets || needs_refusals,
                    checks_location: locations,
                    answers_status: status && ranges != Ranges::Words,
                    ranges,
                    refuses_whole,
                    mount,
                }
            },
        )
}

fn case(
    ranges: impl Strategy<Value = Ranges> + Clone + 'static,
    troubles: impl Strategy<Value = Vec<Trouble>> + Clone + 'static,
    retries: impl Strategy<Value = u32> + Clone + 'static,
) -> impl Strategy<Value = Case> {
    prop_oneof![3 => Just(1_u64), 1 => Just(256 << 10)].prop_flat_map(move |scale| {
        (
            (0..300 * scale, option::of(scale..60 * scale), option::of(8 * scale..60 * scale)),
            manners(scale, ranges.clone()),
            (troubles.clone(), any::<bool>(), retries.clone()),
            (any::<bool>(), option::of(Just("base".to_owned())), option::of(1..30_usize)),
        )
            .prop_map(
                |(
                    (size, growth, chunk_size),
                    manners,
                    (troubles, for_ever, retries),
                    (look, mount, killed_after),
                )| {
                    // The profile of ECR, where it behaves like ECR.
                    let told = manners.ranges != Ranges::Words;
                    let profile = Profile { status: told, trust_range: told, ..Profile::ORDINARY };
                    let (look_first, mount_from, pace) = (look, mount, Pace::INSTANT);
                    let lesson = Lesson::default();
                    let settings =
                        Settings { profile, chunk_size, retries, look_first, mount_from, pace, lesson };
                    Case { size, growth, settings, manners, troubles, for_ever, killed_after }
                },
            )
    })
}

fn mendable() -> impl Strategy<Value = Trouble> + Clone {
    let late = prop_oneof![Just(0.0), 0.0..1.0];
    prop_oneof![
        4 => Just(Trouble::None),
        2 => (0.0..1.0, late).prop_map(|(share, late)| Trouble::Cut { share, late }),
        1 => prop_oneof![Just(429), Just(500), Just(503), Just(408), Just(524)].prop_map(Trouble::Answer),
        1 => Just(Trouble::LoseAnswer),
        1 => Just(Trouble::LoseSessions),
        1 => (0.0..1.0).prop_map(|share| Trouble::Short { share }),
        1 => Just(Trouble::Unreachable),
    ]
}

fn anything() -> impl Strategy<Value = Trouble> + Clone {
    prop_oneof![
        6 => mendable(),
        1 => prop_oneof![Just(400), Just(401), Just(404), Just(405), Just(413), Just(416), Just(200), Just(202)]
            .prop_map(Trouble::Answer),
        1 => (0..400_u64).prop_map(Trouble::Lie),
    ]
}

fn any_ranges() -> impl Strategy<Value = Ranges> + Clone {
    proptest::sample::select([&Ranges::HONEST[..], &Ranges::LYING[..]].concat())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 5000, ..ProptestConfig::default() })]

    #[test]
    fn it_always_ends_and_what_is_uploaded_is_the_blob(
        case in case(any_ranges(), vec(anything(), 0..40), 0..8_u32),
    ) {
        let (result, registry) = push(&case);
        if result.is_ok() {
            prop_assert!(registry.has_blob || case.troubles.contains(&Trouble::Answer(200)));
        }
        prop_assert!(!registry.honest || registry.misassembled == 0);
        // One, five for lost sessions, the ladder of sizes; those whose answer was lost are not counted by us.
        let most = (1 + 5 + 9) * if case.killed_after.is_some() { 2 } else { 1 };
        prop_assert!(registry.opened <= most || case.troubles.contains(&Trouble::LoseAnswer));
    }

    #[test]
    fn a_few_troubles_stop_nobody(
        case in case(
            proptest::sample::select(&Ranges::HONEST[..]),
            vec(mendable(), 0..4),
            Just(100_u32),
        ).prop_map(|case| Case { for_ever: false, ..case }),
    ) {
        let (result, registry) = push(&case);
        prop_assert!(result.is_ok(), "{:?}", result);
        prop_assert!(registry.has_blob);
        prop_assert_eq!(registry.misassembled, 0);
    }

    #[test]
    fn an_honest_registry_gets_every_byte_once(
        case in case(proptest::sample::select(&Ranges::HONEST[..]), Just(Vec::new()), Just(2_u32)),
    ) {
        // What is learned from a 413 costs a session; nothing else does.
        let (result, registry) = push(&case);
        prop_assert!(result.is_ok(), "{:?}", result);
        let limited = case.manners.body_limit.is_some();
        let most = if case.killed_after.is_some() { 2 } else { 1 };
        // To find out that it wants no whole blob costs one as well.
        let most = if case.manners.refuses_whole { 2 * most } else { most };
        prop_assert!(limited || registry.opened <= most || case.manners.equal_parts);
    }
}
