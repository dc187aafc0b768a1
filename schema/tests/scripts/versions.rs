//! A change of an event that names the version which it was meant for.

use boxoffice_schema::event::EventImage;
use boxoffice_schema::scripts::{EventChange, EventOutcome};

use crate::shard::{START_MS, TestShard, event};

fn renamed(shard: &mut TestShard, event: &EventImage, name: &str) -> EventOutcome {
    let name = EventChange::Name(name.to_owned().try_into().unwrap());
    shard.amend_if(event.id, Some(event.updated_at), &[name])
}

#[test]
fn two_changes_at_one_moment_are_two_versions_and_only_the_last_one_can_be_changed() {
    let mut shard = TestShard::certified();
    let event = event(&[10]);
    shard.publish(&event);
    shard.set_clock(START_MS + 1_000_000);
    let published = shard.event(event.id);
    let EventOutcome::Changed(first) = renamed(&mut shard, &published, "first") else { panic!("refused") };
    let EventOutcome::Changed(second) = renamed(&mut shard, &first, "second") else { panic!("refused") };
    assert!(published.updated_at < first.updated_at && first.updated_at < second.updated_at);

    let sequence = shard.shard_field("seq");
    for old in [&published, &first] {
        assert_eq!(renamed(&mut shard, old, "third"), EventOutcome::Superseded);
    }
    assert_eq!(shard.event(event.id), second);
    assert_eq!(shard.shard_field("seq"), sequence, "a refusal is no decision");
}
