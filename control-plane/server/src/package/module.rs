//! Packaging of the filter module: from what the linker wrote to what Envoy loads.
//!
//! Linking the proxy-wasm SDK exports all its callbacks, and Envoy crosses into the VM for every callback that a module
//! exports, also for those that do nothing. Packaging therefore drops exports that the filter does not implement,
//! custom sections (names, producers: size, and paths of whoever built it), and functions that became unreachable.
//!
//! Shared by the build script and the tests. Must never depend on anything but its input: same module in, same
//! bytes out.
//!
//! INVARIANT: what is left behaves as before; only entry points disappear.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::fmt;

use wasm_encoder::reencode::{self, Reencode};
use wasmparser::{ElementItems, ExternalKind, Operator, Payload};

/// The exports that the filter implements. Everything else that the SDK exports would only cost a crossing into the VM
/// per request. A callback that the filter begins to implement must be added here, or Envoy never calls it.
pub const KEPT_EXPORTS: &[&str] = &[
    // What every module has.
    "memory",
    "_initialize",
    "_start",
    "malloc",
    "proxy_on_memory_allocate",
    "proxy_abi_version_0_2_0",
    "proxy_abi_version_0_2_1",
    // Life of contexts.
    "proxy_on_context_create",
    "proxy_on_vm_start",
    "proxy_on_configure",
    "proxy_on_delete",
    // The request path: headers only.
    "proxy_on_request_headers",
    // The stream to the control plane, and its clock.
    "proxy_on_tick",
    "proxy_on_grpc_receive",
    "proxy_on_grpc_close",
];

/// The exports that the build of the module implements besides that reads bodies: what of a request follows its headers,
/// and an answer that comes before.
pub const BODY_EXPORTS: &[&str] =
    &["proxy_on_request_body", "proxy_on_request_trailers", "proxy_on_response_headers"];

/// What packaging did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Packaged {
    /// The module that Envoy loads.
    pub module: Vec<u8>,
    /// Exports that were dropped, in the order of the module.
    pub dropped_exports: Vec<String>,
    /// How many functions became unreachable and were removed, imported ones included.
    pub removed_functions: usize,
}

/// Why a module cannot be packaged.
#[derive(Debug)]
pub enum PackageError {
    /// Not a valid WebAssembly module.
    Invalid(String),
    /// An export without which Envoy cannot run the module is missing.
    MissingExport(&'static str),
}

// === impl PackageError ===

impl fmt::Display for PackageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Invalid(why) => write!(f, "not a valid WebAssembly module: {why}"),
            Self::MissingExport(name) => write!(f, "the module does not export `{name}`; is it the filter?"),
        }
    }
}

impl std::error::Error for PackageError {}

impl From<wasmparser::BinaryReaderError> for PackageError {
    fn from(error: wasmparser::BinaryReaderError) -> Self {
        Self::Invalid(error.to_string())
    }
}

impl From<reencode::Error<Infallible>> for PackageError {
    fn from(error: reencode::Error<Infallible>) -> Self {
        Self::Invalid(error.to_string())
    }
}

/// Packages the module that the linker wrote.
pub fn package(linked: &[u8], reads_bodies: bool) -> Result<Packaged, PackageError> {
    let outline = Outline::read(linked, reads_bodies)?;
    for required in ["memory", "proxy_on_context_create", "proxy_on_request_headers"] {
        if !outline.exports.iter().any(|export| export == required) {
            return Err(PackageError::MissingExport(required));
        }
    }
    let live = outline.live_functions();
    let mut packager = Packager::new(&live, outline.imported_functions, outline.functions, reads_bodies);
    let mut module = wasm_encoder::Module::new();
    packager.parse_core_module(&mut module, wasmparser::Parser::new(0), linked)?;
    let module = module.finish();
    wasmparser::Validator::new().validate_all(&module)?;
    Ok(Packaged {
        module,
        dropped_exports: outline.exports.into_iter().filter(|name| !is_kept(name, reads_bodies)).collect(),
        removed_functions: outline.functions.saturating_sub(live.len()),
    })
}

fn is_kept(export: &str, reads_bodies: bool) -> bool {
    KEPT_EXPORTS.contains(&export) || (reads_bodies && BODY_EXPORTS.contains(&export))
}

/// What refers to which function.
#[derive(Default)]
struct Outline {
    imported_functions: usize,
    /// Imported and defined.
    functions: usize,
    exports: Vec<String>,
    /// Functions that are entered from outside or through tables.
    roots: BTreeSet<u32>,
    /// Per defined function: which functions it names.
    references: Vec<Vec<u32>>,
}

// === impl Outline ===

impl Outline {
    fn read(module: &[u8], reads_bodies: bool) -> Result<Self, PackageError> {
        let mut outline = Self::default();
        wasmparser::Validator::new().validate_all(module)?;
        for payload in wasmparser::Parser::new(0).parse_all(module) {
            match payload? {
                Payload::ImportSection(section) => {
                    for import in section.into_imports() {
                        if matches!(import?.ty, wasmparser::TypeRef::Func(_)) {
                            outline.imported_functions += 1;
                        }
                    }
                }
                Payload::FunctionSection(section) => {
                    outline.functions =
                        outline.imported_functions + usize::try_from(section.count()).unwrap_or(0);
                }
                Payload::GlobalSection(section) => {
                    for global in section {
                        outline.root_expression(&global?.init_expr)?;
                    }
                }
                Payload::TableSection(section) => {
                    for table in section {
                        if let wasmparser::TableInit::Expr(expression) = table?.init {
                            outline.root_expression(&expression)?;
                        }
                    }
                }
                Payload::ExportSection(section) => {
                    for export in section {
                        let export = export?;
                        outline.exports.push(export.name.to_owned());
                        if export.kind == ExternalKind::Func && is_kept(export.name, reads_bodies) {
                            outline.roots.insert(export.index);
                        }
                    }
                }
                Payload::StartSection { func, .. } => {
                    outline.roots.insert(func);
                }
                Payload::ElementSection(section) => {
                    for element in section {
                        match element?.items {
                            ElementItems::Functions(functions) => {
                                for function in functions {
                                    outline.roots.insert(function?);
                                }
                            }
                            ElementItems::Expressions(_, expressions) => {
                                for expression in expressions {
                                    outline.root_expression(&expression?)?;
                                }
                            }
                        }
                    }
                }
                Payload::CodeSectionEntry(body) => {
                    let mut named = Vec::new();
                    for operator in body.get_operators_reader()? {
                        named.extend(named_function(&operator?));
                    }
                    outline.references.push(named);
                }
                _ => {}
            }
        }
        Ok(outline)
    }

    fn root_expression(&mut self, expression: &wasmparser::ConstExpr<'_>) -> Result<(), PackageError> {
        for operator in expression.get_operators_reader() {
            self.roots.extend(named_function(&operator?));
        }
        Ok(())
    }

    /// Every function that can be reached from the roots. Calls through tables are covered: every function in a table
    /// is a root.
    fn live_functions(&self) -> BTreeSet<u32> {
        let mut live = BTreeSet::new();
        let mut pending: Vec<u32> = self.roots.iter().copied().collect();
        while let Some(function) = pending.pop() {
            if !live.insert(function) {
                continue;
            }
            let defined =
                usize::try_from(function).ok().and_then(|ix| ix.checked_sub(self.imported_functions));
            if let Some(named) = defined.and_then(|ix| self.references.get(ix)) {
                pending.extend(named);
            }
        }
        live
    }
}

fn named_function(operator: &Operator<'_>) -> Option<u32> {
    match operator {
        Operator::Call { function_index }
        | Operator::ReturnCall { function_index }
        | Operator::RefFunc { function_index } => Some(*function_index),
        _ => None,
    }
}

/// Writes the module anew without what is not live.
struct Packager {
    /// New index of every function; `None`: removed.
    new_index: Vec<Option<u32>>,
    imported_functions: usize,
    reads_bodies: bool,
    /// How many bodies were passed.
    bodies: usize,
}

// === impl Packager ===

impl Packager {
    fn new(live: &BTreeSet<u32>, imported_functions: usize, functions: usize, reads_bodies: bool) -> Self {
        let mut next = 0;
        let new_index = (0..u32::try_from(functions).unwrap_or(u32::MAX))
            .map(|function| {
                live.contains(&function).then(|| {
                    let index = next;
                    next += 1;
                    index
                })
            })
            .collect();
        Self { new_index, imported_functions, reads_bodies, bodies: 0 }
    }

    fn is_live(&self, function: usize) -> bool {
        self.new_index.get(function).copied().flatten().is_some()
    }
}

impl Reencode for Packager {
    type Error = Infallible;

    fn function_index(&mut self, function: u32) -> Result<u32, reencode::Error<Infallible>> {
        // INVARIANT: only live functions refer to functions, and what they refer to is live; the fallback would be
        // caught by the validation of the result.
        let index = usize::try_from(function).ok().and_then(|ix| self.new_index.get(ix).copied().flatten());
        Ok(index.unwrap_or(u32::MAX))
    }

    fn parse_import_section(
        &mut self,
        imports: &mut wasm_encoder::ImportSection,
        section: wasmparser::ImportSectionReader<'_>,
    ) -> Result<(), reencode::Error<Infallible>> {
        let mut function = 0;
        for import in section.into_imports() {
            let import = import?;
            if matches!(import.ty, wasmparser::TypeRef::Func(_)) {
                function += 1;
                if !self.is_live(function - 1) {
                    continue;
                }
            }
            self.parse_import(imports, import)?;
        }
        Ok(())
    }

    fn parse_function_section(
        &mut self,
        functions: &mut wasm_encoder::FunctionSection,
        section: wasmparser::FunctionSectionReader<'_>,
    ) -> Result<(), reencode::Error<Infallible>> {
        for (ix, function) in section.into_iter().enumerate() {
            let function_type = function?;
            if self.is_live(self.imported_functions + ix) {
                functions.function(self.type_index(function_type)?);
            }
        }
        Ok(())
    }

    fn parse_export_section(
        &mut self,
        exports: &mut wasm_encoder::ExportSection,
        section: wasmparser::ExportSectionReader<'_>,
    ) -> Result<(), reencode::Error<Infallible>> {
        for export in section {
            let export = export?;
            if is_kept(export.name, self.reads_bodies) {
                self.parse_export(exports, export)?;
            }
        }
        Ok(())
    }

    fn parse_function_body(
        &mut self,
        code: &mut wasm_encoder::CodeSection,
        body: wasmparser::FunctionBody<'_>,
    ) -> Result<(), reencode::Error<Infallible>> {
        self.bodies += 1;
        if self.is_live(self.imported_functions + self.bodies - 1) {
            reencode::utils::parse_function_body(self, code, body)?;
        }
        Ok(())
    }

    fn parse_custom_section(
        &mut self,
        _module: &mut wasm_encoder::Module,
        _section: wasmparser::CustomSectionReader<'_>,
    ) -> Result<(), reencode::Error<Infallible>> {
        Ok(())
    }
}
