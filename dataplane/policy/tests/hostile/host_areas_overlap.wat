;; Keys, members and results of host calls lie on each other, in the descriptors, and at times of every sign.
;; runs
;; grants: meter quota
(module
  (@custom "sluice.manifest" "abi = \221.0\22\0aname = \22hostile\22\0ahooks = [\22ingress\22]\0aimports = [\22meter\22, \22quota\22]\0areasons = [\22r\22]\0acounters = [\22one\22, \22two\22]\0amemory_max_bytes = 1048576\0a")
  (import "sluice" "meter_open" (func $mo (param i64 i64 i32) (result i32)))
  (import "sluice" "meter_batch" (func $mb (param i32 i32 i32 i64 i32 i32)))
  (import "sluice" "meter_prefix_batch" (func $mp (param i32 i32 i32 i32 i32 i32 i64 i32)))
  (import "sluice" "quota_open" (func $qo (param i32 i32 i64) (result i32)))
  (import "sluice" "quota_batch" (func $qb (param i32 i32 i32 i32 i64 i32)))
  (memory (export "memory") 1)
  (data (i32.const 16) "\30\00\00\00\00\01\00\00\00\04\00\00\40\00\00\00\00\80\00\00\08\00\00\00\00\a0\00\00\00\10\00\00\00\c0\00\00\00\01\00\00\00\e0\00\00\02\00\00\00")
  (func (export "sluice_abi_version") (result i32) (i32.const 0x10000))
  (func $layout (export "sluice_layout") (result i32) (i32.const 16))
  (func (export "sluice_configure") (param $len i32) (result i32)
    (drop (call $mo (i64.const 1000) (i64.const 10) (i32.const 1024)))
    (drop (call $qo (i32.const 10) (i32.const 1024) (i64.const 1000))) (i32.const 0))
  (func $process (export "sluice_process") (param $n i32) (param $now i64)
    (if (local.get $n) (then 
      (call $mb (i32.const 0) (i32.const 61000) (i32.const 256) (i64.const -1) (i32.const 61000) (i32.const 61000))
      (call $mp (i32.const 0) (i32.const 1024) (i32.const 64) (local.get $n) (i32.const 32) (i32.const 128)
        (i64.const 0x7fffffffffffffff) (i32.const 1024))
      (call $qb (i32.const 0) (i32.const 61440) (i32.const 61440) (i32.const 256) (i64.const 0x8000000000000000)
        (i32.const 61440)))))
)
