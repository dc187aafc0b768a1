//! Boxoffice api.
