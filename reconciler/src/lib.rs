//! Boxoffice reconciler.
