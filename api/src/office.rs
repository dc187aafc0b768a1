//! What every request can reach.

use metrics_exporter_prometheus::PrometheusHandle;

use crate::actions::Journal;
use crate::catalogue::Catalogue;
use crate::find::Stores;
use crate::identity::Authentication;

/// Shared by all workers of an application.
pub(crate) struct Office {
    pub(crate) authentication: Authentication,
    pub(crate) stores: Stores,
    pub(crate) catalogue: Catalogue,
    pub(crate) journal: Journal,
    pub(crate) metrics: PrometheusHandle,
}
