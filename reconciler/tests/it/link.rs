//! A connection to a server that can be cut, as a network or a dead server would.

use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_util::sync::{CancellationToken, DropGuard};

/// Forwards connections to a server until it is cut.
pub(crate) struct Link {
    url: String,
    local: String,
    server: String,
    open: Option<DropGuard>,
}

impl Link {
    /// Forwards to the server that a URL names.
    pub(crate) async fn to(url: &str) -> Self {
        let after_scheme = url.find("//").unwrap() + 2;
        let start = url.rfind('@').map_or(after_scheme, |at| at + 1);
        let end = start + url[start..].find('/').unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let local = listener.local_addr().unwrap().to_string();
        let mut link = Self {
            url: format!("{}{local}{}", &url[..start], &url[end..]),
            local,
            server: url[start..end].to_owned(),
            open: None,
        };
        link.serve(listener);
        link
    }

    /// The server's URL by way of this link.
    pub(crate) fn url(&self) -> String {
        self.url.clone()
    }

    /// Breaks all connections, and refuses new ones.
    pub(crate) fn cut(&mut self) {
        self.open = None;
    }

    /// Forwards again.
    pub(crate) async fn mend(&mut self) {
        let listener = TcpListener::bind(&self.local).await.unwrap();
        self.serve(listener);
    }

    fn serve(&mut self, listener: TcpListener) {
        let (cut, server) = (CancellationToken::new(), self.server.clone());
        self.open = Some(cut.clone().drop_guard());
        tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Some(Ok((mut near, _))) = cut.run_until_cancelled(listener.accept()).await {
                let server = server.clone();
                connections.spawn(async move {
                    if let Ok(mut far) = TcpStream::connect(server).await {
                        let _ = copy_bidirectional(&mut near, &mut far).await;
                    }
                });
            }
        });
    }
}
