//! What the engine says of what it sent.

use handoff::call::media::{MediaReport, Quality, Source, Stretch};
use handoff::clock::Now;
use handoff::id::LegId;
use handoff::id::PlayId;

use super::{CALLER, HUMAN, World};
use crate::media::rtcp::{self, Heard, REPORT_LEN_MAX, Report};

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

/// The last figures of a leg.
fn quality(world: &World, wanted: LegId) -> Option<Quality> {
    world.ear.events.iter().rev().find_map(|event| {
        let MediaReport::Quality { leg, quality } = &event.report else { return None };
        (*leg == wanted).then_some(*quality)
    })
}

#[test]
fn what_is_lost_on_the_way_and_what_the_far_end_reports_is_told_with_each_report() {
    let mut world = World::new();
    world.plan(&[(CALLER, Source::Leg(HUMAN)), (HUMAN, Source::Leg(CALLER))], &[]);
    for tick in 0..1_200 {
        // Every tenth packet of the human is lost.
        world.phones.get_mut(&HUMAN).unwrap().talks = tick % 10 != 9;
        if tick % 10 == 9 {
            world.phones.get_mut(&HUMAN).unwrap().sequence += 1;
        }
        if tick == 900 {
            // A second ago the caller had our report; it misses a hundred packets.
            let port = world.phones[&CALLER].port;
            let ssrc = world.sent(CALLER)[0].ssrc;
            let now = Now::from_millis(world.now.millis() - 80);
            let heard = Heard {
                ssrc,
                fraction_lost: 0,
                lost: 100,
                highest: 0,
                jitter: 160,
                last_report: rtcp::middle(Now::from_millis(now.millis() - 1_000)),
                since_report: 1 << 16,
            };
            let mut buffer = [0; REPORT_LEN_MAX];
            let report = Report { ssrc: 9, now, timestamp: 0, packets: 1, octets: 1, heard: Some(heard) };
            let len = report.write(&mut buffer).len();
            world.engine.control_packet(world.now, port, &mut buffer[..len]);
        }
        world.tick();
    }
    let (caller, human) = (quality(&world, CALLER).unwrap(), quality(&world, HUMAN).unwrap());
    assert_eq!((caller.lost_pm, caller.jitter_ms, caller.far_jitter_ms), (0, 0, Some(20)));
    assert!((70..90).contains(&caller.round_trip_ms.unwrap()), "{caller:?}");
    assert!((90..115).contains(&caller.far_lost_pm.unwrap()), "{caller:?}");
    assert!((95..105).contains(&human.lost_pm) && human.far_lost_pm.is_none(), "{human:?}");
    assert!(caller.mos_x100 > Some(420) && human.mos_x100 < Some(350), "{caller:?} {human:?}");
}
