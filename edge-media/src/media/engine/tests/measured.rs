//! What the engine says of what it sent.

use handoff::call::media::{MediaReport, Source, Stretch};
use handoff::id::PlayId;

use super::{CALLER, HUMAN, World};

/// What was measured at the caller's egress, all in all.
fn measured(world: &World) -> Stretch {
    let stretches = world.ear.events.iter().filter_map(|event| {
        let MediaReport::Sent { egress, stretch } = &event.report else { return None };
        (*egress == CALLER).then_some(*stretch)
    });
    stretches.fold(Stretch::default(), Stretch::and)
}

#[test]
fn what_the_caller_is_sent_is_measured_and_a_planted_whisper_is_found_in_it() {
    let mut world = World::new();
    for leaks in [false, true] {
        world.plan(&[(CALLER, Source::HoldBed)], &[]);
        world.run(10);
        let caller = if leaks { Source::Prompt(PlayId(1)) } else { Source::HoldBed };
        world
            .plan(&[(CALLER, caller), (HUMAN, Source::Prompt(PlayId(2)))], &[(1, "whisper"), (2, "whisper")]);
        world.run(40);
        world.plan(&[(CALLER, Source::Leg(HUMAN)), (HUMAN, Source::Leg(CALLER))], &[]);
        world.run(60);
        let stretch = measured(&world);
        assert_eq!((stretch.breaks, stretch.leaked_frames > 0), (0, leaks), "{stretch:?}");
        assert!(stretch.packets > 40 && stretch.longest_gap_ms <= 20, "{stretch:?}");
    }
}
