//! The certificate by which TLS is served: read at start, and again when its files have changed.

use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};

use anyhow::{Context, ensure};
use rustls::ServerConfig;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use tokio_util::sync::CancellationToken;

use crate::file;

/// Where certificate and key are, both in PEM.
#[derive(Clone, Debug)]
pub(crate) struct TlsFiles {
    pub(crate) certificate: PathBuf,
    pub(crate) key: PathBuf,
}

/// What the files held. It has no `Debug`: one of them is secret.
#[derive(Clone, PartialEq, Eq)]
struct Contents {
    certificate: Vec<u8>,
    key: Vec<u8>,
}

/// The certificate in force. Connections keep the one that they began with.
#[derive(Debug)]
struct InForce(RwLock<Arc<CertifiedKey>>);

impl ResolvesServerCert for InForce {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.read().unwrap_or_else(PoisonError::into_inner).clone())
    }
}

/// TLS as it is served: 1.2 and 1.3 as rustls has them, HTTP/1.1 alone. The certificate follows its files until the
/// token is cancelled.
///
/// # Errors
/// Names the variable whose file cannot be read or is of no use.
pub(crate) fn tls(files: TlsFiles, stop: &CancellationToken) -> anyhow::Result<ServerConfig> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let contents = read(&files)?;
    let in_force = Arc::new(InForce(RwLock::new(Arc::new(certified(&contents, &provider)?))));
    let mut config = ServerConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_cert_resolver(in_force.clone());
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    tokio::spawn(watch(files, contents, in_force, provider, stop.clone()));
    Ok(config)
}

fn read(files: &TlsFiles) -> anyhow::Result<Contents> {
    Ok(Contents {
        certificate: file::read(&files.certificate).context("BOXOFFICE_TLS_CERT")?,
        key: file::read(&files.key).context("BOXOFFICE_TLS_KEY")?,
    })
}

/// The chain and the key that belongs to it.
fn certified(contents: &Contents, provider: &CryptoProvider) -> anyhow::Result<CertifiedKey> {
    let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(&contents.certificate)
        .collect::<Result<_, _>>()
        .context("BOXOFFICE_TLS_CERT is not a chain of certificates in PEM")?;
    ensure!(!chain.is_empty(), "BOXOFFICE_TLS_CERT holds no certificate in PEM");
    // The error says what is wrong, and nothing of the key.
    let key = PrivateKeyDer::from_pem_slice(&contents.key)
        .map_err(|_| anyhow::anyhow!("BOXOFFICE_TLS_KEY holds no private key in PEM"))?;
    CertifiedKey::from_der(chain, key, provider)
        .context("BOXOFFICE_TLS_KEY is not the key of BOXOFFICE_TLS_CERT")
}

/// Puts a changed pair in force. What is broken twice in a row is said once, and the last good one stays: two files are
/// not replaced in one moment.
async fn watch(
    files: TlsFiles,
    mut known: Contents,
    in_force: Arc<InForce>,
    provider: Arc<CryptoProvider>,
    stop: CancellationToken,
) {
    let (mut broken, mut said) = (None, None);
    while stop.run_until_cancelled(tokio::time::sleep(file::INTERVAL)).await.is_some() {
        let looked = look(&files, &known, &provider).await;
        metrics::gauge!("boxoffice_tls_certificate_valid").set(if looked.is_ok() { 1.0 } else { 0.0 });
        match looked {
            Ok(changed) => {
                (broken, said) = (None, None);
                let Some((contents, certified)) = changed else { continue };
                *in_force.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(certified);
                known = contents;
                tracing::info!("the TLS certificate has changed; new connections get it");
            }
            Err(error) => {
                let error = Some(format!("{error:#}"));
                if broken == error && said != error {
                    tracing::error!(
                        error,
                        "the files of the TLS certificate are broken; the last good one is served on: mend them"
                    );
                    said.clone_from(&error);
                }
                broken = error;
            }
        }
    }
}

/// What has changed, where it is whole.
async fn look(
    files: &TlsFiles,
    known: &Contents,
    provider: &CryptoProvider,
) -> anyhow::Result<Option<(Contents, CertifiedKey)>> {
    let asked = files.clone();
    let contents = tokio::task::spawn_blocking(move || read(&asked)).await.context("reading failed")??;
    if contents == *known {
        return Ok(None);
    }
    let certified = certified(&contents, provider)?;
    Ok(Some((contents, certified)))
}
