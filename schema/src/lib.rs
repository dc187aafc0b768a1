//! Boxoffice schema.
