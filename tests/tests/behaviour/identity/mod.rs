//! Who may do what, tried as an attacker would.

mod actions;
mod inputs;
mod installation;
mod keys;
mod provider;
mod storefronts;
mod tokens;

use std::process::Command;

use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderValue};
use serde_json::Value;

use crate::processes::API;
use crate::world::{Settings, World};

pub const KEYS: [&str; 2] = ["--auth", "keys"];

const OPERATOR_SCOPES: &str = "events:write,bookings:write,bookings:read,audit:read";
const STOREFRONT_SCOPES: &str = "bookings:write,bookings:read";

/// Runs `boxoffice-api` with a command; what it prints, where it succeeds.
pub fn command(settings: &Settings, arguments: &[&str]) -> Result<String, String> {
    let mut command = Command::new(API);
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("BOXOFFICE_")) {
        command.env_remove(name);
    }
    let output = command.args(["--database-url", &settings.database_url]).args(arguments).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    if output.status.success() { Ok(String::from_utf8(output.stdout).unwrap()) } else { Err(said) }
}

/// A key as it is handed out.
#[derive(Clone)]
pub struct Key {
    pub id: String,
    pub text: String,
}

impl Key {
    fn of(answer: &str) -> Self {
        let answer: Value = serde_json::from_str(answer).unwrap();
        let text = answer["key"].as_str().unwrap().to_owned();
        Self { id: answer["details"]["id"].as_str().unwrap().to_owned(), text }
    }

    pub fn create(settings: &Settings, owner: &[&str], scopes: &str) -> Self {
        let arguments = [&["keys", "create", "a key", "--json", "--scopes", scopes], owner].concat();
        Self::of(&command(settings, &arguments).unwrap())
    }

    pub fn operator(settings: &Settings) -> Self {
        Self::create(settings, &["--operator"], OPERATOR_SCOPES)
    }

    pub fn storefront(settings: &Settings, id: &str) -> Self {
        Self::create(settings, &["--storefront", id], STOREFRONT_SCOPES)
    }

    pub fn rotate(&self, settings: &Settings, overlap_hours: &str) -> Self {
        let arguments = ["keys", "rotate", &self.id, "--overlap-hours", overlap_hours, "--json"];
        Self::of(&command(settings, &arguments).unwrap())
    }
}

impl World {
    /// From now on every request of this world carries this credential.
    pub fn present(&mut self, credential: Option<&str>) {
        let mut headers = HeaderMap::new();
        if let Some(credential) = credential {
            headers.insert(AUTHORIZATION, HeaderValue::from_str(&format!("Bearer {credential}")).unwrap());
        }
        self.http = reqwest::Client::builder().default_headers(headers).build().unwrap();
    }

    /// As [`World::present`], once the API knows the key.
    pub async fn present_key(&mut self, key: &Key) {
        self.present(Some(&key.text));
        crate::world::eventually("the key to be known", || async {
            self.get("/v1/events?limit=1").await.status == 200
        })
        .await;
    }
}

/// A world in which an operator's key is presented.
pub async fn operated(arguments: &[&str]) -> (World, Key) {
    let mut world = World::start_with(arguments).await;
    let operator = Key::operator(&world.settings);
    world.present_key(&operator).await;
    (world, operator)
}
