//! The mode of authentication: `off` on loopback alone, and never another one than the installation began with.

use std::process::Stdio;

use tokio_util::sync::CancellationToken;

use super::{Key, command};
use crate::processes::{API, program};
use crate::world::{Settings, World};

/// What an API says that does not start.
fn refusal(settings: &Settings, more: &[&str]) -> String {
    let arguments = settings.api_arguments(more);
    let output = program(API, &arguments[1..]).stderr(Stdio::piped()).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{said}");
    said
}

async fn migrated() -> Settings {
    let settings = Settings::fresh().await;
    boxoffice_reconciler::migrate::migrate(&settings.reconciler()).await.unwrap();
    settings
}

#[tokio::test]
async fn without_authentication_it_serves_on_loopback_alone() {
    let settings = migrated().await;
    for address in ["0.0.0.0:0", "[::]:0", "192.0.2.1:8080", "[::ffff:127.0.0.1]:0"] {
        let said = refusal(&settings, &["--auth", "off", "--listen", address]);
        assert!(said.contains("BOXOFFICE_AUTH=off") && said.contains("loopback"), "{said}");
    }
}

#[tokio::test]
async fn another_mode_than_the_installations_is_refused_at_start() {
    let settings = migrated().await;
    let stop = CancellationToken::new();
    let world = World::around(settings.clone(), &["--auth", "keys"], stop.clone()).await;
    world.get("/v1/events").await.expect(200);
    let said = refusal(&settings, &["--auth", "off", "--listen", "127.0.0.1:0"]);
    assert!(said.contains("BOXOFFICE_AUTH is off") && said.contains("first started with keys"), "{said}");
    stop.cancel();
}

#[tokio::test]
async fn no_secret_is_in_the_help_or_in_what_a_wrong_setting_is_answered_with() {
    let settings = migrated().await;
    let key = Key::operator(&settings);
    for arguments in [vec!["--help"], vec!["keys", "create", "--help"]] {
        let help = std::process::Command::new(API)
            .args(arguments)
            .env("BOXOFFICE_DATABASE_URL", "postgres://u:hunter2@h/d")
            .env("BOXOFFICE_REDIS_URL", "redis://:hunter2@h/")
            .output()
            .unwrap();
        let said = String::from_utf8([help.stdout, help.stderr].concat()).unwrap();
        assert!(said.contains("Usage") && !said.contains("hunter2"), "{said}");
    }
    let mut wrong = settings.clone();
    wrong.database_url = "postgres://u:hunter2@127.0.0.1:9/d".to_owned();
    let said = command(&wrong, &["keys", "list"]).unwrap_err();
    assert!(said.contains("PostgreSQL does not answer") && !said.contains("hunter2"), "{said}");
    let secret = key.text.rsplit('_').next().unwrap();
    let said = command(&settings, &["keys", "revoke", secret]).unwrap_err();
    assert!(said.contains("16 hexadecimal digits") && !said.contains(secret), "{said}");
}

#[tokio::test]
async fn a_whole_key_does_for_its_id_and_its_secret_is_not_repeated() {
    let settings = migrated().await;
    let key = Key::operator(&settings);
    let secret = key.text.rsplit('_').next().unwrap();
    let said = command(&settings, &["keys", "rotate", &key.text]).unwrap();
    assert!(said.contains("This is the whole key") && !said.contains(secret), "{said}");
    let said = command(&settings, &["keys", "revoke", &key.text]).unwrap();
    assert!(said.contains(&key.id) && said.contains("revoked") && !said.contains(secret), "{said}");
}

#[tokio::test]
async fn without_a_word_about_it_callers_are_authenticated() {
    let settings = migrated().await;
    let mut arguments = settings.api_arguments(&["--auth", "x"]);
    arguments.retain(|argument| argument != "--auth" && argument != "x");
    let parsed = <boxoffice_api::config::Options as clap::Parser>::parse_from(arguments).checked().unwrap();
    assert_eq!(parsed.auth, boxoffice_api::identity::Mode::Keys);
}
