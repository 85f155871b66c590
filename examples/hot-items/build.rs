fn main() -> Result<(), stead_build::Error> {
    stead_build::compile(&["hotitems/hotitems.proto"], &["proto", "../shopping-cart/proto"])
}
