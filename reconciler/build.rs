//! Embeds the migrations anew when one is added: the macro that embeds them sees only changes of known files.

fn main() {
    println!("cargo:rerun-if-changed=../schema/migrations");
}
