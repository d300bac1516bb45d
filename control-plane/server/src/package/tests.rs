use wasm_encoder::{
    CodeSection, ConstExpr, CustomSection, ElementSection, Elements, EntityType, ExportKind, ExportSection,
    Function, FunctionSection, ImportSection, Instruction, MemorySection, MemoryType, Module, RefType,
    TableSection, TableType, TypeSection, ValType,
};
use wasmparser::{Parser, Payload};

use super::module::{BODY_EXPORTS, KEPT_EXPORTS, PackageError, package};
use super::{FILTER_BODIES_SHA256, FILTER_BODIES_WASM, FILTER_SHA256, FILTER_WASM};

/// Functions return their number, so that they are recognised wherever they end up:
/// 0 imported and used, 1 imported and unused, 2 `proxy_on_context_create` (calls 4), 3 `proxy_on_response_body`
/// (calls 5 and 1), 4 helper (calls 0), 5 only used by 3, 6 in the table, 7 `proxy_on_request_headers`.
fn linked() -> Vec<u8> {
    let mut types = TypeSection::new();
    types.ty().function([], [ValType::I32]);
    let mut imports = ImportSection::new();
    imports.import("env", "used", EntityType::Function(0));
    imports.import("env", "unused", EntityType::Function(0));
    let mut functions = FunctionSection::new();
    let mut code = CodeSection::new();
    for (number, calls) in
        [(2, vec![4]), (3, vec![5, 1]), (4, vec![0]), (5, vec![]), (6, vec![]), (7, vec![])]
    {
        functions.function(0);
        let mut body = Function::new([]);
        for callee in calls {
            body.instruction(&Instruction::Call(callee));
            body.instruction(&Instruction::Drop);
        }
        body.instruction(&Instruction::I32Const(number));
        body.instruction(&Instruction::End);
        code.function(&body);
    }
    let mut tables = TableSection::new();
    tables.table(TableType {
        element_type: RefType::FUNCREF,
        table64: false,
        minimum: 1,
        maximum: Some(1),
        shared: false,
    });
    let mut memories = MemorySection::new();
    memories.memory(MemoryType {
        minimum: 1,
        maximum: None,
        memory64: false,
        shared: false,
        page_size_log2: None,
    });
    let mut exports = ExportSection::new();
    exports.export("memory", ExportKind::Memory, 0);
    exports.export("proxy_on_context_create", ExportKind::Func, 2);
    exports.export("proxy_on_response_body", ExportKind::Func, 3);
    exports.export("proxy_on_request_headers", ExportKind::Func, 7);
    let mut elements = ElementSection::new();
    elements.active(Some(0), &ConstExpr::i32_const(0), Elements::Functions([6].as_slice().into()));
    let mut module = Module::new();
    module.section(&types).section(&imports).section(&functions).section(&tables).section(&memories);
    module.section(&exports).section(&elements).section(&code);
    module.section(&CustomSection { name: "producers".into(), data: b"/home/somebody".as_slice().into() });
    module.finish()
}

/// The numbers of the functions that are left, in order.
fn functions(module: &[u8]) -> Vec<i32> {
    let mut numbers = Vec::new();
    for payload in Parser::new(0).parse_all(module) {
        if let Payload::CodeSectionEntry(body) = payload.unwrap() {
            for operator in body.get_operators_reader().unwrap() {
                if let wasmparser::Operator::I32Const { value } = operator.unwrap() {
                    numbers.push(value);
                }
            }
        }
    }
    numbers
}

fn exports(module: &[u8]) -> Vec<String> {
    let mut names = Vec::new();
    for payload in Parser::new(0).parse_all(module) {
        if let Payload::ExportSection(section) = payload.unwrap() {
            names.extend(section.into_iter().map(|export| export.unwrap().name.to_owned()));
        }
    }
    names
}

#[test]
fn what_is_not_implemented_goes_with_everything_that_only_it_needs() {
    let packaged = package(&linked(), false).unwrap();
    assert_eq!(packaged.dropped_exports, ["proxy_on_response_body"]);
    assert_eq!(exports(&packaged.module), ["memory", "proxy_on_context_create", "proxy_on_request_headers"]);
    assert_eq!(functions(&packaged.module), [2, 4, 6, 7]);
    assert_eq!(packaged.removed_functions, 3, "two of the module and one import");
    let text = String::from_utf8_lossy(&packaged.module).into_owned();
    assert!(text.contains("used") && !text.contains("unused"));
    assert!(!text.contains("producers") && !text.contains("/home/somebody"));
}

#[test]
fn packaging_is_deterministic_and_packaging_twice_changes_nothing() {
    let once = package(&linked(), false).unwrap();
    assert_eq!(once, package(&linked(), false).unwrap());
    let twice = package(&once.module, false).unwrap();
    assert_eq!(twice.module, once.module);
    assert_eq!((twice.dropped_exports.len(), twice.removed_functions), (0, 0));
}

#[test]
fn what_is_no_filter_is_refused() {
    assert!(matches!(package(b"\0asm", false), Err(PackageError::Invalid(_))));
    assert!(matches!(package(b"dummy", true), Err(PackageError::Invalid(_))));
    assert!(matches!(package(&Module::new().finish(), false), Err(PackageError::MissingExport("memory"))));
}

#[test]
fn the_embedded_module_is_packaged_and_its_digest_is_right() {
    assert_eq!(crate::bundle::hex(&crate::bundle::sha256(FILTER_WASM)), FILTER_SHA256);
    let exports = exports(FILTER_WASM);
    assert!(exports.iter().all(|export| KEPT_EXPORTS.contains(&export.as_str())), "{exports:?}");
    for needed in
        ["proxy_on_request_headers", "proxy_on_grpc_receive", "proxy_on_grpc_close", "proxy_on_tick"]
    {
        assert!(exports.iter().any(|export| export == needed), "{needed}: {exports:?}");
    }
    for payload in Parser::new(0).parse_all(FILTER_WASM) {
        assert!(!matches!(payload.unwrap(), Payload::CustomSection(_)), "custom sections name who built it");
    }
}

#[test]
fn bodies_reach_only_the_build_that_reads_them() {
    let (without, with) = (exports(FILTER_WASM), exports(FILTER_BODIES_WASM));
    for export in BODY_EXPORTS.iter().map(|export| (*export).to_owned()) {
        assert!(!without.contains(&export) && with.contains(&export), "{export}");
    }
    assert_eq!(with.len(), without.len() + BODY_EXPORTS.len());
    assert_eq!(crate::bundle::hex(&crate::bundle::sha256(FILTER_BODIES_WASM)), FILTER_BODIES_SHA256);
}

#[test]
fn the_embedded_module_names_no_folder_of_who_built_it() {
    let text = String::from_utf8_lossy(FILTER_WASM);
    for variable in ["HOME", "CARGO_HOME", "CARGO_MANIFEST_DIR"] {
        if let Ok(folder) = std::env::var(variable)
            && folder.len() > 1
        {
            assert!(!text.contains(&format!("{folder}/")), "{variable}");
        }
    }
}
