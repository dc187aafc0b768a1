//! A file of a test, gone with it.

use std::path::{Path, PathBuf};

pub struct TemporaryFile(PathBuf);

impl TemporaryFile {
    pub fn new(purpose: &str, text: &str) -> Self {
        let path = std::env::temp_dir().join(format!("boxoffice-{purpose}-{}", uuid::Uuid::now_v7()));
        std::fs::write(&path, text).unwrap();
        Self(path)
    }

    /// As an argument of a program.
    pub fn name(&self) -> &str {
        self.0.to_str().unwrap()
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    /// As one does it: a whole file takes the other's place.
    pub fn replace(&self, text: &str) {
        let fresh = self.0.with_extension("new");
        std::fs::write(&fresh, text).unwrap();
        std::fs::rename(&fresh, &self.0).unwrap();
    }
}

impl Drop for TemporaryFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}
