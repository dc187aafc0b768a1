//! The comparison of the stores, and the commands that tell of it.

use boxoffice_schema::scripts::Outcome;

use secrecy::ExposeSecret;

use crate::link::Link;
use crate::recovering::{LiveSale, restart_redis};
use crate::relaying::{outbox, trim_outbox};
use crate::stack::{FIRST, Stack, wait_until};

/// An installation with one event, sold by the scripts and applied.
async fn sold() -> (Stack, LiveSale) {
    let stack = Stack::prepare().await;
    let service = stack.start();
    stack.wait_until_certified().await;
    let sale = LiveSale::publish(&stack, 100).await;
    for key in ["a", "b", "c"] {
        assert!(matches!(sale.book(&stack, key).await, Outcome::Changed(_)));
    }
    // The recovery drains the outbox, which is a relay's work otherwise.
    restart_redis(&stack).await;
    stack.wait_until_certified().await;
    service.stop().await;
    (stack, sale)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stores_that_agree_make_once_exit_with_0() {
    let (stack, sale) = sold().await;
    let (code, printed) = stack.command(&["once"]).await;
    assert_eq!(code, 0, "{printed}");
    assert!(printed.contains("Redis and PostgreSQL agree"), "{printed}");
    assert_eq!(stack.number("SELECT count(*) FROM leases").await, 0);

    let (code, printed) = stack.command(&["once", "--json"]).await;
    assert_eq!(code, 0, "{printed}");
    let json: serde_json::Value = serde_json::from_str(&printed).unwrap();
    assert_eq!(json["verdict"], "agreement");
    assert_eq!(json["audit"]["compared"], 1);
    assert_eq!(json["audit"]["totals"]["redis"]["sold"], 3);
    let (code, printed) = stack.command(&["audit", "--event", &sale.id().to_string()]).await;
    assert_eq!(code, 0, "{printed}");
    stack.remove().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn once_works_beside_the_service() {
    let (stack, _) = sold().await;
    let service = stack.start();
    stack.wait_for_number("the service holds the lease", "SELECT count(*) FROM leases", 1).await;
    let (code, printed) = stack.command(&["once"]).await;
    assert_eq!(code, 0, "{printed}");
    assert!(printed.contains("by the process that holds the lease"), "{printed}");
    stack
        .wait_for_number(
            "an agreeing audit is recorded",
            "SELECT count(*) FROM (SELECT ok FROM reconciliations ORDER BY id DESC LIMIT 1) AS last WHERE ok",
            1,
        )
        .await;
    let (code, printed) = stack.command(&["status"]).await;
    assert_eq!(code, 0, "{printed}");
    service.stop().await;
    stack.remove().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drift_is_found_recorded_and_told_with_exit_code_1() {
    let (stack, sale) = sold().await;
    let key = stack.config.keys().event(FIRST, sale.id());
    let _: i64 =
        redis::cmd("HSET").arg(&key).arg("sold0").arg(5).query_async(&mut stack.redis.clone()).await.unwrap();
    let (code, printed) = stack.command(&["once"]).await;
    assert_eq!(code, 1, "{printed}");
    assert!(printed.contains("Redis has capacity 100, held 0, sold 5"), "{printed}");
    assert_eq!(stack.number("SELECT drift FROM reconciliations ORDER BY id DESC LIMIT 1").await, 2);
    assert_eq!(stack.words("SELECT DISTINCT kind FROM reconciliation_findings").await, ["drift"]);

    stack.execute("UPDATE ticket_types SET sold = 5").await;
    let (code, printed) = stack.command(&["audit"]).await;
    assert_eq!(code, 1, "{printed}");
    assert!(printed.contains("rows_differ"), "{printed}");
    stack.remove().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_that_redis_lost_is_found() {
    let (stack, sale) = sold().await;
    let key = stack.config.keys().event(FIRST, sale.id());
    let _: i64 = redis::cmd("DEL").arg(&key).query_async(&mut stack.redis.clone()).await.unwrap();
    let (code, printed) = stack.command(&["once"]).await;
    assert_eq!(code, 1, "{printed}");
    assert!(printed.contains("missing_inventory"), "{printed}");

    // The command that the report names mends it.
    let event = sale.id().to_string();
    assert!(printed.contains(&format!("boxoffice-reconciler rebuild --event {event}")), "{printed}");
    assert_eq!(stack.command(&["rebuild", "--event", &event]).await.0, 0);
    let (code, printed) = stack.command(&["once"]).await;
    assert_eq!(code, 0, "{printed}");
    stack.remove().await;
}

/// The command ends with its rebuild, and what it runs in its own process with it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rebuild_closes_the_alarm_that_it_raised_before_its_command_ends() {
    let (stack, sale) = sold().await;
    let key = stack.config.keys().event(FIRST, sale.id());
    let _: i64 = redis::cmd("DEL").arg(&key).query_async(&mut stack.redis.clone()).await.unwrap();
    // How many alarms are open in the moment in which the rebuild ends.
    stack.execute("CREATE TABLE left_open (alarms BIGINT)").await;
    let look = "CREATE FUNCTION look() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN \
                INSERT INTO left_open SELECT count(*) FROM alarms WHERE resolved_at IS NULL; RETURN NEW; END $$";
    stack.execute(look).await;
    stack.execute("CREATE TRIGGER look BEFORE UPDATE ON repairs FOR EACH ROW EXECUTE FUNCTION look()").await;
    let event = sale.id().to_string();
    assert_eq!(stack.command(&["rebuild", "--event", &event]).await.0, 0);
    assert_eq!(stack.number("SELECT count(*) FROM alarms").await, 1);
    assert_eq!(stack.number("SELECT max(alarms) FROM left_open").await, 0);
    stack.remove().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_audit_goes_on_when_redis_is_back() {
    let (stack, _) = sold().await;
    let mut link = Link::to(stack.config.redis_url.expose_secret()).await;
    let service = stack.start_with(|config| config.redis_url = link.url().into());
    let audits = "SELECT count(*) FROM reconciliations";
    let before = stack.number(audits).await;
    wait_until("an audit is made", async || stack.number(audits).await > before).await;
    link.cut();
    let (code, printed) = stack.command(&["status"]).await;
    assert!(code == 0 || code == 1, "{printed}");
    link.mend().await;
    let before = stack.number(audits).await;
    wait_until("audits are made again", async || stack.number(audits).await > before + 1).await;
    assert!(stack.is_certified(FIRST).await);
    assert_eq!(stack.number("SELECT count(*) FROM alarms").await, 0);
    service.stop().await;
    stack.remove().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn decisions_that_wait_in_redis_are_lag_and_not_drift() {
    let (stack, sale) = sold().await;
    assert!(matches!(sale.book(&stack, "d").await, Outcome::Changed(_)));
    let (code, printed) = stack.command(&["once"]).await;
    assert_eq!(code, 2, "{printed}");
    assert!(printed.contains("1 decisions behind Redis"), "{printed}");
    assert_eq!(stack.number("SELECT drift FROM reconciliations ORDER BY id DESC LIMIT 1").await, 0);
    assert_eq!(
        stack.number("SELECT not_compared::int8 FROM reconciliations ORDER BY id DESC LIMIT 1").await,
        1
    );
    stack.remove().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_that_cannot_finish_says_why_and_hides_the_password() {
    let (stack, _) = sold().await;
    let output = stack
        .binary(&["once"])
        .env("BOXOFFICE_REDIS_URL", "redis://user:hunter2@127.0.0.1:1/")
        .output()
        .await
        .unwrap();
    let printed = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2), "{printed}");
    assert!(printed.contains("Redis did not answer"), "{printed}");
    assert!(!printed.contains("hunter2"), "{printed}");

    for (variable, value, said) in [
        ("BOXOFFICE_SHARDS", "0", "BOXOFFICE_SHARDS"),
        ("BOXOFFICE_SHARDS", "many", "BOXOFFICE_SHARDS"),
        ("BOXOFFICE_SHARDS", "3", "this installation has 2 shards"),
        ("BOXOFFICE_REDIS_PREFIX", "{x}", "BOXOFFICE_REDIS_PREFIX"),
        ("BOXOFFICE_DATABASE_URL", "mysql://a:hunter2@b/", "BOXOFFICE_DATABASE_URL"),
        ("BOXOFFICE_REDIS_URL", "http://a:hunter2@b/", "BOXOFFICE_REDIS_URL"),
        ("BOXOFFICE_KAFKA_BROKERS", "", "BOXOFFICE_KAFKA_BROKERS"),
        ("BOXOFFICE_KAFKA_TOPIC", "no such topic", "BOXOFFICE_KAFKA_TOPIC"),
        ("BOXOFFICE_KAFKA_TOPIC", "no-such-topic", "run `boxoffice-reconciler migrate` first"),
    ] {
        let output = stack.binary(&["once"]).env(variable, value).output().await.unwrap();
        let printed = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{variable}={value}: {printed}");
        assert!(printed.contains(said), "{variable}={value}: {printed}");
        assert!(!printed.contains("hunter2"), "{variable}={value}: {printed}");
    }
    stack.remove().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn old_reports_are_removed_a_few_with_each_new_one() {
    let (stack, _) = sold().await;
    stack
        .execute(
            "WITH old AS (INSERT INTO reconciliations \
                 (started_at, duration_ms, lag, compared, not_compared, drift, ok, positions) \
                 SELECT now() - make_interval(days => 31, secs => n), 1, 0, 0, 0, 0, true, '{}' \
                 FROM generate_series(1, 150) AS n RETURNING id) \
             INSERT INTO reconciliation_findings (reconciliation_id, shard, kind, detail) \
             SELECT id, 0, 'overdue_holds', '' FROM old",
        )
        .await;
    let old = "SELECT count(*) FROM reconciliations WHERE started_at < now() - interval '30 days'";
    for left in [50, 0] {
        assert_eq!(stack.command(&["audit"]).await.0, 0);
        assert_eq!(stack.number(old).await, left);
    }
    assert_eq!(stack.number("SELECT count(*) FROM reconciliation_findings").await, 0);
    stack.remove().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_about_an_event_that_nobody_published_says_so_instead_of_that_all_is_well() {
    let (stack, _) = sold().await;
    let nobody = "0190c2d4-7b1e-7000-8000-000000000000";
    for command in
        [["audit", "--event"].as_slice(), &["repair", "--event"], &["repair", "--dry-run", "--event"]]
    {
        let (code, printed) = stack.command(&[command, &[nobody]].concat()).await;
        assert_eq!(code, 2, "{printed}");
        assert!(printed.contains(&format!("PostgreSQL has no published event {nobody}")), "{printed}");
    }
    stack.remove().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn decisions_that_stand_still_on_their_way_are_told_by_the_status() {
    let stack = Stack::prepare().await;
    let service = stack.start();
    stack.wait_until_certified().await;
    let sale = LiveSale::publish(&stack, 10).await;
    let records = outbox(&stack).await;
    let (_, printed) = stack.command(&["status"]).await;
    assert!(!printed.contains("waited in Redis"), "it came just now: {printed}");
    let long_ago = (chrono::Utc::now().timestamp_millis() - 61_000).to_string();
    let mut set = redis::cmd("HSET");
    set.arg(stack.config.keys().shard(FIRST)).arg("head_ms").arg(long_ago);
    let _: i64 = set.query_async(&mut stack.redis.clone()).await.unwrap();
    let (code, printed) = stack.command(&["status"]).await;
    assert_eq!(code, 1, "{printed}");
    assert!(printed.contains("waited in Redis for a minute, of s00"), "{printed}");

    service.stop().await;
    trim_outbox(&stack, records.last().unwrap().position).await;
    stack.append(&records).await;
    let (_, printed) = stack.command(&["status"]).await;
    assert!(!printed.contains("nobody has applied"), "it came just now: {printed}");
    stack.execute("UPDATE shards SET updated_at = now() - interval '2 min'").await;
    let (code, printed) = stack.command(&["status"]).await;
    assert_eq!(code, 1, "{printed}");
    assert!(printed.contains("nobody has applied for a minute, of s00"), "{printed}");
    drop(sale);
    stack.remove().await;
}
