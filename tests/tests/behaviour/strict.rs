//! Servers that are not set up to keep what an acknowledgement promises: named loudly, and refused where that is asked.

use std::fs::File;
use std::process::Output;

use crate::private_redis::PrivateRedis;
use crate::processes::{API, Process, RECONCILER, program};
use crate::world::{Settings, World, eventually};

fn ended(mut command: std::process::Command) -> Output {
    command.stderr(std::process::Stdio::piped()).output().unwrap()
}

/// What a strict API says when it refuses.
fn refusal(settings: &Settings) -> String {
    let arguments = settings.api_arguments(&["--strict", "--listen", "127.0.0.1:0"]);
    let output = ended(program(API, &arguments[1..]));
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{said}");
    said
}

async fn on(redis: &PrivateRedis) -> Settings {
    let mut settings = Settings::fresh().await;
    settings.redis_url = redis.url();
    boxoffice_reconciler::migrate::migrate(&settings.reconciler()).await.unwrap();
    settings
}

#[tokio::test]
async fn a_strict_api_refuses_a_redis_that_could_lose_an_acknowledged_booking_and_lists_why() {
    let lax = ["--appendfsync", "everysec", "--no-appendfsync-on-rewrite", "yes", "--maxmemory", "0"];
    let redis = PrivateRedis::start_with(&lax).await;
    let settings = on(&redis).await;
    let said = refusal(&settings);
    assert!(said.contains("appendfsync everysec, not always"), "{said}");
    assert!(said.contains("no-appendfsync-on-rewrite yes, not no"), "{said}");
    assert!(said.contains("maxmemory 0, not a limit"), "{said}");

    let mut connection = redis.connection().await;
    for (name, value) in
        [("appendfsync", "always"), ("no-appendfsync-on-rewrite", "no"), ("maxmemory", "256mb")]
    {
        let mut command = redis::cmd("CONFIG");
        command.arg("SET").arg(name).arg(value).query_async::<()>(&mut connection).await.unwrap();
    }
    Process::api(&settings, &["--strict"]).await;
}

#[tokio::test]
async fn a_strict_api_refuses_a_redis_that_hides_its_settings() {
    let redis = PrivateRedis::start_with(&["--rename-command", "CONFIG", ""]).await;
    let said = refusal(&on(&redis).await);
    assert!(said.contains("does not tell its settings"), "{said}");
}

#[tokio::test]
async fn a_strict_api_refuses_a_redis_whose_replica_may_lag_without_bound() {
    let redis = PrivateRedis::start().await;
    let settings = on(&redis).await;
    let replica = PrivateRedis::start().await;
    replica.follow(&redis).await;
    let said = refusal(&settings);
    assert!(said.contains("min-replicas-to-write 0, not 1 or more"), "{said}");
}

#[tokio::test]
async fn an_api_says_what_is_wrong_with_another_redis_that_takes_the_place_of_the_first() {
    let mut redis = PrivateRedis::start().await;
    let settings = on(&redis).await;
    let log = std::env::temp_dir().join(format!("boxoffice-api-{}", settings.name));
    let arguments = settings.api_arguments(&["--listen", "127.0.0.1:0"]);
    let mut api = program(API, &arguments[1..]).stderr(File::create(&log).unwrap()).spawn().unwrap();
    let said = || std::fs::read_to_string(&log).unwrap();
    redis.kill();
    redis.start_again_with(vec!["--appendfsync".to_owned(), "no".to_owned()]).await;
    eventually("the API to say it", || async { said().contains("appendfsync no, not always") }).await;
    api.kill().unwrap();
    api.wait().unwrap();
    std::fs::remove_file(&log).unwrap();
}

#[tokio::test]
async fn a_strict_reconciler_refuses_one_copy_of_each_record_unless_the_operator_says_so() {
    let settings = Settings::fresh().await;
    boxoffice_reconciler::migrate::migrate(&settings.reconciler()).await.unwrap();
    let mut arguments = settings.reconciler_arguments();
    "run".clone_into(&mut arguments[0]);
    arguments.push("--strict".to_owned());
    let output = ended(program(RECONCILER, &arguments));
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("replication factor 1, not 3"), "{said}");

    arguments.extend(["--kafka-replication", "1"].map(str::to_owned));
    let mut reconciler = program(RECONCILER, &arguments).spawn().unwrap();
    let world = World::around(settings, &[], tokio_util::sync::CancellationToken::new()).await;
    world.selling().await;
    reconciler.kill().unwrap();
    reconciler.wait().unwrap();
}
