//! Where the measurements take place: binaries, servers and ports, as `scripts/bench` hands them over.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use boxoffice_schema::shard::ShardCount;
use clap::Args;

/// Everything that a section is told from outside.
#[derive(Clone, Debug, Args)]
pub(crate) struct Place {
    /// Folder of the binaries.
    #[arg(long)]
    pub(crate) binaries: PathBuf,

    /// Folder for the logs.
    #[arg(long)]
    pub(crate) logs: PathBuf,

    /// Folder of the stack: its servers' pid files are in it where they are processes of this machine.
    #[arg(long)]
    pub(crate) servers: PathBuf,

    /// Redis.
    #[arg(long, env = "BOXOFFICE_REDIS_URL")]
    pub(crate) redis_url: String,

    /// PostgreSQL.
    #[arg(long, env = "BOXOFFICE_DATABASE_URL", hide_env_values = true)]
    pub(crate) database_url: String,

    /// Address of the API; the handler without a store listens at the next port.
    #[arg(long, default_value = "127.0.0.1:22080")]
    pub(crate) listen: SocketAddr,

    /// Shards of each installation: many events share their calls the better the fewer there are.
    #[arg(long, default_value = "16", value_parser = parse_shards)]
    pub(crate) shards: ShardCount,
}

impl Place {
    /// Where the handler without a store listens.
    pub(crate) fn floor(&self) -> SocketAddr {
        let ip: IpAddr = self.listen.ip();
        SocketAddr::new(ip, self.listen.port() + 1)
    }
}

fn parse_shards(text: &str) -> anyhow::Result<ShardCount> {
    Ok(ShardCount::new(text.parse()?)?)
}
