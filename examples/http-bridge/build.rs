fn main() -> Result<(), stead_build::Error> {
    stead_build::compile(&["bridge/bridge.proto"], &["proto"])
}
