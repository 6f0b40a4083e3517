//! The attribute [`macro@plugin`] of `sluice-sdk`: it reads a plugin's manifest while the plugin is
//! compiled, refuses it in the router's words, and exports the plugin with what the manifest declares.
#![forbid(unsafe_code)]

mod names;

use std::path::PathBuf;

use proc_macro2::{Span, TokenStream};
use quote::quote;
use sluice_manifest::Manifest;
use syn::{
    Error, Expr, Ident, ImplItem, ItemImpl, LitBool, LitStr, Result, Token,
    parse::{Parse, ParseStream},
    parse_macro_input,
};

/// Exports the type that an `impl Plugin for …` is for as the module's plugin.
///
/// `manifest = "FILE"` names the manifest, from the folder of the package's `Cargo.toml`;
/// `manifest_toml = "TEXT"` holds it instead. `marks = true` is for plugins that read what earlier ones
/// set, and `config_capacity = N` for configurations above 256 KiB.
///
/// Besides the exports there are, beside the `impl`, the modules `reason`, `counter` and `table`: a
/// constant for each name of the manifest's `reasons`, `counters` and `tables`, in capitals and with `_`
/// for `-`.
#[proc_macro_attribute]
pub fn plugin(
    arguments: proc_macro::TokenStream,
    item: proc_macro::TokenStream,
) -> proc_macro::TokenStream {
    let arguments = parse_macro_input!(arguments as Arguments);
    let mut item = parse_macro_input!(item as ItemImpl);
    expand(&arguments, &mut item).unwrap_or_else(|error| error.into_compile_error()).into()
}

/// Where the manifest is.
enum Source {
    File(LitStr),
    Text(LitStr),
}

struct Arguments {
    source: Source,
    marks: bool,
    config_capacity: Option<Expr>,
}

impl Parse for Arguments {
    fn parse(input: ParseStream<'_>) -> Result<Self> {
        let (mut source, mut marks, mut config_capacity) = (None, false, None);
        while !input.is_empty() {
            let key: Ident = input.parse()?;
            input.parse::<Token![=]>()?;
            match key.to_string().as_str() {
                "manifest" if source.is_none() => source = Some(Source::File(input.parse()?)),
                "manifest_toml" if source.is_none() => source = Some(Source::Text(input.parse()?)),
                "manifest" | "manifest_toml" => {
                    return Err(Error::new(key.span(), "there is one manifest"));
                }
                "marks" => marks = input.parse::<LitBool>()?.value(),
                "config_capacity" => config_capacity = Some(input.parse()?),
                _ => {
                    let known = "`manifest`, `manifest_toml`, `marks` and `config_capacity`";
                    return Err(Error::new(key.span(), format!("there are {known}")));
                }
            }
            if !input.is_empty() {
                input.parse::<Token![,]>()?;
            }
        }
        let missing = || Error::new(Span::call_site(), "say `manifest = \"manifest.toml\"`");
        Ok(Self { source: source.ok_or_else(missing)?, marks, config_capacity })
    }
}

impl Source {
    fn literal(&self) -> &LitStr {
        match self {
            Self::File(literal) | Self::Text(literal) => literal,
        }
    }

    /// The manifest's text, and the expression for it in the expanded code.
    fn read(&self) -> Result<(String, TokenStream)> {
        match self {
            Self::Text(text) => Ok((text.value(), quote!(#text))),
            Self::File(path) => {
                let folder = std::env::var_os("CARGO_MANIFEST_DIR").map(PathBuf::from);
                let file = folder.unwrap_or_default().join(path.value());
                let text = std::fs::read_to_string(&file).map_err(|error| {
                    Error::new(path.span(), format!("{}: {error}", file.display()))
                })?;
                // Included, so that cargo builds again when it changes.
                let included = quote!(::core::include_str!(
                    ::core::concat!(::core::env!("CARGO_MANIFEST_DIR"), "/", #path)
                ));
                Ok((text, included))
            }
        }
    }
}

fn expand(arguments: &Arguments, item: &mut ItemImpl) -> Result<TokenStream> {
    let at = arguments.source.literal().span();
    let (text, included) = arguments.source.read()?;
    let manifest = Manifest::parse(text.as_bytes())
        .map_err(|error| Error::new(at, format!("the manifest is not valid: {error}")))?;
    check_methods(&manifest, item, at)?;
    // `type Config` may be left out.
    if !item.items.iter().any(|item| matches!(item, ImplItem::Type(it) if it.ident == "Config")) {
        item.items.push(syn::parse_quote!(
            type Config = ::sluice_sdk::NoConfig;
        ));
    }

    let plugin = &item.self_ty;
    let counters = manifest.counter_names().len();
    let edits = manifest.takes_edits();
    let marks = arguments.marks;
    let capacity = arguments.config_capacity.iter();
    let payload = manifest.payload.map_or(0, |window| window.bytes);
    let state = manifest.state.iter().map(|state| {
        let (schema, takes, bytes) = (state.schema, &state.takes, state.bytes_max);
        quote!(state = (#schema, [#(#takes),*], #bytes),)
    });
    let tick = manifest.tick_ms.iter().map(|_| quote!(tick = true,));
    let reasons = &manifest.reasons;
    let names = names::counter_table(&manifest);
    let constants = names::modules(&manifest, at)?;
    Ok(quote! {
        #item

        #constants

        ::sluice_sdk::export! {
            #plugin,
            manifest = #included,
            counters = #counters,
            #(config_capacity = #capacity,)*
            edits = #edits,
            marks = #marks,
            payload = #payload,
            #(#state)*
            #(#tick)*
            reasons = [#(#reasons),*],
            names = #names,
        }
    })
}

/// Whether the plugin has the methods that its manifest promises, and no others.
fn check_methods(manifest: &Manifest, item: &ItemImpl, at: Span) -> Result<()> {
    let method = |name: &str| {
        item.items.iter().find_map(|item| match item {
            ImplItem::Fn(method) if method.sig.ident == name => Some(method.sig.ident.span()),
            _ => None,
        })
    };
    for (name, key, is_declared) in [
        ("tick", "tick_ms", manifest.tick_ms.is_some()),
        ("export", "state", manifest.state.is_some()),
        ("import", "state", manifest.state.is_some()),
    ] {
        match (is_declared, method(name)) {
            (true, None) => {
                let text = format!("the manifest has `{key}`, but there is no method `{name}`");
                return Err(Error::new(at, text));
            }
            (false, Some(span)) => {
                let text = format!("nobody would call `{name}`: the manifest has no `{key}`");
                return Err(Error::new(span, text));
            }
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
