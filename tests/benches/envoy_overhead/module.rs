//! A wasm filter that does nothing: what every filter in wasm costs at least.

use wasm_encoder::{
    CodeSection, ExportKind, ExportSection, Function, FunctionSection, MemorySection, MemoryType, Module,
    TypeSection, ValType,
};

/// Callbacks with their number of parameters and what they answer. The same that Tidegate's module has for requests.
const CALLBACKS: [(&str, usize, Option<i32>); 8] = [
    ("proxy_abi_version_0_2_1", 0, None),
    ("proxy_on_memory_allocate", 1, Some(0)),
    ("proxy_on_context_create", 2, None),
    ("proxy_on_vm_start", 2, Some(1)),
    ("proxy_on_configure", 2, Some(1)),
    // 0: continue.
    ("proxy_on_request_headers", 3, Some(0)),
    ("proxy_on_done", 1, Some(1)),
    ("proxy_on_delete", 1, None),
];

/// The module (proxy-wasm ABI 0.2.1).
pub fn continue_always() -> Vec<u8> {
    let (mut types, mut functions, mut exports, mut code) =
        (TypeSection::new(), FunctionSection::new(), ExportSection::new(), CodeSection::new());
    exports.export("memory", ExportKind::Memory, 0);
    for (index, (name, parameters, answer)) in (0..).zip(CALLBACKS) {
        let parameters = std::iter::repeat_n(ValType::I32, parameters);
        types.ty().function(parameters, answer.map(|_| ValType::I32));
        functions.function(index);
        exports.export(name, ExportKind::Func, index);
        let mut body = Function::new([]);
        if let Some(answer) = answer {
            body.instructions().i32_const(answer);
        }
        body.instructions().end();
        code.function(&body);
    }
    let mut memories = MemorySection::new();
    memories.memory(MemoryType {
        minimum: 1,
        maximum: None,
        memory64: false,
        shared: false,
        page_size_log2: None,
    });
    let mut module = Module::new();
    module.section(&types).section(&functions).section(&memories).section(&exports).section(&code);
    module.finish()
}
