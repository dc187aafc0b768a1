//! What every request can reach.

use std::sync::Arc;

use metrics_exporter_prometheus::PrometheusHandle;

use crate::actions::Journal;
use crate::catalogue::Catalogue;
use crate::find::Stores;
use crate::identity::Authentication;
use crate::limits::Limits;
use crate::request::TrustedProxies;

/// Shared by all workers of an application, but for what each asks Redis by itself.
#[derive(Clone)]
pub(crate) struct Office {
    pub(crate) authentication: Arc<Authentication>,
    pub(crate) stores: Stores,
    pub(crate) catalogue: Catalogue,
    pub(crate) journal: Journal,
    /// None where no policies are configured.
    pub(crate) limits: Option<Arc<Limits>>,
    pub(crate) proxies: TrustedProxies,
    /// Whether clients come by TLS.
    pub(crate) is_secure: bool,
    pub(crate) metrics: PrometheusHandle,
}

impl Office {
    /// For the requests of the thread that calls this.
    pub(crate) fn of_this_thread(&self) -> Self {
        let mut office = self.clone();
        office.stores.inventory = self.stores.inventory.of_this_thread();
        office
    }
}
