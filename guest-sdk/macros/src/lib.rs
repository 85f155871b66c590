//! The macros of `stead-sdk`; see there.

use proc_macro::TokenStream;
use proc_macro2::TokenStream as TokenStream2;
use quote::quote;
use syn::{Data, DeriveInput, Error, Fields, Ident, Result, Type, parse_macro_input};

/// Implements `stead_sdk::Events` for an enum whose variants hold one message each, and `From` for
/// each of the messages.
#[proc_macro_derive(Events)]
pub fn derive_events(input: TokenStream) -> TokenStream {
    let input = parse_macro_input!(input as DeriveInput);
    events(&input).unwrap_or_else(|error| error.to_compile_error()).into()
}

fn events(input: &DeriveInput) -> Result<TokenStream2> {
    let variants = variants(input)?;
    let name = &input.ident;
    let (idents, types): (Vec<_>, Vec<_>) = variants.into_iter().unzip();
    let indices = 0..idents.len();
    let indices = indices.collect::<Vec<_>>();
    let count = idents.len();
    Ok(quote! {
        const _: () = {
            /// Made once: `full_name` allocates.
            fn type_names() -> &'static [::std::string::String; #count] {
                static NAMES: ::std::sync::OnceLock<[::std::string::String; #count]> =
                    ::std::sync::OnceLock::new();
                NAMES.get_or_init(|| [#(<#types as ::stead_sdk::prost::Name>::full_name()),*])
            }

            impl ::stead_sdk::Events for #name {
                fn encode(&self) -> ::stead_sdk::EncodedMessage {
                    match self {#(
                        Self::#idents(message) => ::stead_sdk::EncodedMessage {
                            type_name: ::std::clone::Clone::clone(&type_names()[#indices]),
                            data: ::stead_sdk::prost::Message::encode_to_vec(message),
                        },
                    )*}
                }

                fn decode(
                    type_name: &str,
                    data: &[u8],
                ) -> ::core::result::Result<Self, ::std::string::String> {
                    match type_names().iter().position(|name| name == type_name) {
                        #(::core::option::Option::Some(#indices) => {
                            ::stead_sdk::__private::decode(type_name, data).map(Self::#idents)
                        })*
                        _ => ::core::result::Result::Err(
                            ::stead_sdk::__private::unknown_event(type_name),
                        ),
                    }
                }
            }

            #(impl ::core::convert::From<#types> for #name {
                fn from(message: #types) -> Self {
                    Self::#idents(message)
                }
            })*
        };
    })
}

fn variants(input: &DeriveInput) -> Result<Vec<(&Ident, &Type)>> {
    let Data::Enum(data) = &input.data else {
        return Err(Error::new_spanned(&input.ident, "events are an enum of message types"));
    };
    if !input.generics.params.is_empty() {
        return Err(Error::new_spanned(&input.generics, "an enum of events has no parameters"));
    }
    if data.variants.is_empty() {
        let message = "an enum of events has at least one; `stead_sdk::NoEvents` has none";
        return Err(Error::new_spanned(&input.ident, message));
    }
    data.variants
        .iter()
        .map(|variant| match &variant.fields {
            Fields::Unnamed(fields) if fields.unnamed.len() == 1 => {
                Ok((&variant.ident, &fields.unnamed[0].ty))
            }
            _ => Err(Error::new_spanned(
                variant,
                format!("a variant holds one message: `{}(SomeMessage)`", variant.ident),
            )),
        })
        .collect()
}
