# SPDX-License-Identifier: Apache-2.0
# Warnings, hardening and sanitizers in one INTERFACE target.
add_library(sparsight_options INTERFACE)
add_library(sparsight::options ALIAS sparsight_options)

set(_cxx "$<COMPILE_LANGUAGE:CXX>")
target_compile_options(sparsight_options INTERFACE
  $<${_cxx}:-Wall> $<${_cxx}:-Wextra> $<${_cxx}:-Wpedantic> $<${_cxx}:-Wshadow> $<${_cxx}:-Wconversion>
  $<${_cxx}:-Wsign-conversion> $<${_cxx}:-Wold-style-cast> $<${_cxx}:-Wnon-virtual-dtor>
  $<${_cxx}:-Woverloaded-virtual> $<${_cxx}:-Wdouble-promotion>)
if(SPARSIGHT_WERROR)
  target_compile_options(sparsight_options INTERFACE $<${_cxx}:-Werror>)
endif()
if(SPARSIGHT_SANITIZE)
  target_compile_options(sparsight_options INTERFACE $<${_cxx}:-fsanitize=${SPARSIGHT_SANITIZE}>
                         $<${_cxx}:-fno-omit-frame-pointer> $<${_cxx}:-fno-sanitize-recover=all>)
  target_link_options(sparsight_options INTERFACE -fsanitize=${SPARSIGHT_SANITIZE})
else()
  target_compile_options(sparsight_options INTERFACE $<$<AND:${_cxx},$<CONFIG:Release>>:-fstack-protector-strong>)
  target_compile_definitions(sparsight_options INTERFACE $<$<AND:${_cxx},$<CONFIG:Release>>:_FORTIFY_SOURCE=2>)
endif()
target_compile_definitions(sparsight_options INTERFACE $<$<CONFIG:Debug>:_GLIBCXX_ASSERTIONS>)

if(SPARSIGHT_MOLD)
  find_program(SPARSIGHT_MOLD_PROGRAM mold)
  if(SPARSIGHT_MOLD_PROGRAM AND NOT SPARSIGHT_SANITIZE)
    target_link_options(sparsight_options INTERFACE -fuse-ld=mold)
  endif()
endif()
find_program(SPARSIGHT_CCACHE ccache)
if(SPARSIGHT_CCACHE AND NOT CMAKE_CXX_COMPILER_LAUNCHER)
  set(CMAKE_C_COMPILER_LAUNCHER ${SPARSIGHT_CCACHE})
  set(CMAKE_CXX_COMPILER_LAUNCHER ${SPARSIGHT_CCACHE})
  set(CMAKE_CUDA_COMPILER_LAUNCHER ${SPARSIGHT_CCACHE})
endif()
