use std::path::PathBuf;

/// What is compiled into one file of descriptors each.
const SETS: &[(&str, &[&str])] = &[
    ("cart.binpb", &["shoppingcart/shoppingcart.proto"]),
    ("tck.binpb", &["stead/tck/v1/action.proto"]),
    ("fraud.binpb", &["fraud/fraud.proto"]),
];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let includes = [
        "../examples/shopping-cart/proto",
        "../examples/tck-model/proto",
        "../examples/fraud-check/proto",
        "../proto",
    ];
    for include in includes {
        println!("cargo::rerun-if-changed={include}");
    }
    let out = PathBuf::from(std::env::var("OUT_DIR")?);
    for (name, files) in SETS {
        let descriptors = protox::compile(files.iter(), includes)?;
        std::fs::write(out.join(name), prost::Message::encode_to_vec(&descriptors))?;
        tonic_prost_build::configure().build_server(false).compile_fds(descriptors)?;
    }
    Ok(())
}
