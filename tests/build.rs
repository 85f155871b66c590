use std::path::PathBuf;

const FILES: &[&str] = &["shoppingcart/shoppingcart.proto"];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let includes = ["../examples/shopping-cart/proto", "../proto"];
    for include in includes {
        println!("cargo::rerun-if-changed={include}");
    }
    let descriptors = protox::compile(FILES, includes)?;
    let out = PathBuf::from(std::env::var("OUT_DIR")?);
    std::fs::write(out.join("cart.binpb"), prost::Message::encode_to_vec(&descriptors))?;
    tonic_prost_build::configure().build_server(false).compile_fds(descriptors)?;
    Ok(())
}
