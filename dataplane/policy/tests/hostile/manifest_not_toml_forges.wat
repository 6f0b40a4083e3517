;; A manifest that is no TOML, with a sequence that steers a terminal.
;; refused: \n    4 | x�[31m
(module
  (@custom "sluice.manifest" "abi = \221.0\22\0aname = \22hostile\22\0ahooks = [\22ingress\22]\0ax\1b[31m = 1\0areasons = [\22r\22]\0acounters = [\22one\22, \22two\22]\0amemory_max_bytes = 1048576\0a")
  (memory (export "memory") 1)
  (data (i32.const 16) "\30\00\00\00\00\01\00\00\00\04\00\00\40\00\00\00\00\80\00\00\08\00\00\00\00\a0\00\00\00\10\00\00\00\c0\00\00\00\01\00\00\00\e0\00\00\02\00\00\00")
  (func (export "sluice_abi_version") (result i32) (i32.const 0x10000))
  (func $layout (export "sluice_layout") (result i32) (i32.const 16))
  (func (export "sluice_configure") (param $len i32) (result i32) (i32.const 0))
  (func $process (export "sluice_process") (param $n i32) (param $now i64) 
    ))
