//! Protections that are switched off on purpose, to see whether the chaos run notices. Only with the feature `mutants`.

/// Whether `BOXOFFICE_MUTANT` names this protection.
pub fn is_off(protection: &str) -> bool {
    std::env::var("BOXOFFICE_MUTANT").is_ok_and(|mutant| mutant == protection)
}

/// What a script does without its protection: the mutant, the script (or all), and a part of its text with what takes
/// its place.
const TEXTS: &[(&str, Option<&str>, &str, &str)] = &[
    (
        "no-fence",
        None,
        "if shard and is_certified(KEYS[2], shard.epoch) then return shard end",
        "return shard",
    ),
    // A hold stays scheduled when it expires, and gives its tickets back once more.
    (
        "double-expiry",
        Some("expire"),
        "booking.state ~= HELD then",
        "booking.state ~= HELD and booking.state ~= EXPIRED then",
    ),
    (
        "double-expiry",
        Some("expire"),
        "unschedule[subject] = true\n  booking.state = state",
        "if booking.state == EXPIRED then unschedule[subject] = true end\n  booking.state = state",
    ),
];

/// The script's text without the protection that is switched off.
///
/// # Panics
/// Where a script that decides no longer holds the protection's text: the mutant would prove nothing.
pub(crate) fn mutate(name: &str, source: &'static str) -> &'static str {
    let mut text = source.to_owned();
    for (mutant, script, protection, instead) in TEXTS {
        let concerned = script.map_or(source.contains("local function open_shard"), |script| script == name);
        if concerned && is_off(mutant) {
            assert!(text.contains(protection), "{name} does not hold what the mutant {mutant} switches off");
            text = text.replace(protection, instead);
        }
    }
    text.leak()
}
