fn main() -> Result<(), stead_build::Error> {
    stead_build::compile(&["fraud/fraud.proto"], &["proto"])
}
