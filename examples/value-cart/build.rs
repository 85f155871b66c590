fn main() -> Result<(), stead_build::Error> {
    stead_build::compile(&["valuecart/valuecart.proto"], &["proto"])
}
