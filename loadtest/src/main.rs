//! On-sale load.
fn main() {}
