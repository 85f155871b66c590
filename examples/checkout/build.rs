fn main() -> Result<(), stead_build::Error> {
    stead_build::compile(&["checkout/checkout.proto", "checkout/shop.proto"], &["proto"])
}
