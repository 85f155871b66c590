fn main() -> Result<(), stead_build::Error> {
    stead_build::compile(
        &["shoppingcart/shoppingcart.proto", "shoppingcart/persistence/domain.proto"],
        &["proto"],
    )
}
