fn main() -> Result<(), stead_build::Error> {
    stead_build::compile(&["stead/tck/v1/model.proto"], &["proto"])
}
