# Finds, checks and builds the pinned libvpx, once per recipe and compiler, in the user's cache:
#
#   $VPXRC_CACHE or ${XDG_CACHE_HOME:-~/.cache}/vpxrc/
#     libvpx-1.17.0.tar.gz       the source, believed only by its checksum
#     libvpx-1.17.0-<hash>/      <hash> covers checksum, this file, sanitizing, compiler
#     libvpx-1.17.0-<hash>-high/ the same for 10-bit video
#       src/                     libvpx's tree (the seam includes internal headers)
#       build/                   libvpx.a and the generated headers
#       vpxenc                   libvpx's own encoder, unhooked: the oracle of tests and benchmarks;
#                                not where libvpx is built with sanitizers
#
# The source comes from, in this order: -DVPXRC_LIBVPX_SOURCE=TARBALL (or the environment variable of
# that name), the cache, the upstream release, Debian's source package. Gives the targets
# vpxrc_libvpx and vpxrc_libvpx_high.

set(VPXRC_LIBVPX_VERSION 1.17.0)
set(VPXRC_LIBVPX_SHA256 1020f184046187baa2985dbde38e0691f49c44088bca7a1842b0236c6081dc0a)
set(VPXRC_LIBVPX_URL https://github.com/webmproject/libvpx/archive/refs/tags/v${VPXRC_LIBVPX_VERSION}.tar.gz)
include(${CMAKE_CURRENT_LIST_DIR}/pinned_source.cmake)

function(vpxrc_build_libvpx cache entry sanitize options)
  # One process builds, the others wait and find its result. The lock dies with its holder, so what
  # lies under a .tmp name is a killed build's and may go.
  file(LOCK ${cache}/lock GUARD FUNCTION TIMEOUT 1800)
  if(EXISTS ${cache}/${entry})
    return()
  endif()
  if(CMAKE_SYSTEM_PROCESSOR MATCHES "^(x86_64|AMD64|i.86)$")
    find_program(VPXRC_NASM nasm NO_CACHE PATHS ENV PATH NO_DEFAULT_PATH)  # where configure looks
    if(NOT VPXRC_NASM)
      vpxrc_fail("libvpx needs the assembler nasm: install it (Debian: apt-get install nasm)")
    endif()
    set(assembler --as=nasm)
  endif()
  find_program(VPXRC_MAKE NAMES gmake make NO_CACHE REQUIRED)
  set(tarball ${cache}/libvpx-${VPXRC_LIBVPX_VERSION}.tar.gz)
  vpxrc_fetch(libvpx ${VPXRC_LIBVPX_VERSION} ${VPXRC_LIBVPX_SHA256} ${VPXRC_LIBVPX_URL} libvpx
    VPXRC_LIBVPX_SOURCE ${cache} ${tarball})

  message(STATUS "vpxrc: building ${cache}/${entry}, once (about a minute)")
  set(temp ${cache}/${entry}.tmp)
  set(log ${cache}/${entry}.log)
  file(REMOVE_RECURSE ${temp})
  file(ARCHIVE_EXTRACT INPUT ${tarball} DESTINATION ${temp})
  file(RENAME ${temp}/libvpx-${VPXRC_LIBVPX_VERSION} ${temp}/src)
  file(MAKE_DIRECTORY ${temp}/build)
  cmake_host_system_information(RESULT cores QUERY NUMBER_OF_LOGICAL_CORES)
  # Neither the caller's flags nor an outer make's job server may leak into the build: the entry's
  # name does not cover them.
  set(environment ${CMAKE_COMMAND} -E env --unset=CFLAGS --unset=CXXFLAGS --unset=CPPFLAGS --unset=ASFLAGS
    --unset=LDFLAGS --unset=MAKEFLAGS --unset=MFLAGS --unset=MAKELEVEL
    CC=${CMAKE_C_COMPILER} CXX=${CMAKE_CXX_COMPILER})
  # No libyuv, because only the programs use it and vpxenc needs no scaler here.
  if(sanitize)
    # What the native tests do not need is left out, and -O1, which overrules libvpx's -O3, compiles
    # its largest files in a third of the time.
    list(APPEND options --disable-vp9-decoder)
    set(flags "${sanitize} -O1")
  endif()
  vpxrc_run("libvpx's configure" ${log} ${environment} LDFLAGS=${sanitize} ${CMAKE_COMMAND} -E chdir ${temp}/build
    ../src/configure --disable-vp8 --disable-examples --disable-tools --disable-docs --disable-unit-tests
    --enable-pic --enable-static --disable-shared --disable-webm-io --disable-libyuv ${assembler} ${options}
    "--extra-cflags=${flags}")
  vpxrc_run("building libvpx" ${log} ${environment} ${VPXRC_MAKE} -C ${temp}/build -j${cores} libvpx.a)
  if(NOT sanitize)
    set(programs vpxenc.c args.c y4minput.c ivfdec.c ivfenc.c rate_hist.c tools_common.c warnings.c vpxstats.c)
    list(TRANSFORM programs PREPEND ${temp}/src/)
    vpxrc_run("building vpxenc" ${log} ${CMAKE_C_COMPILER} -O3 -I${temp}/src -I${temp}/build
      ${programs} ${temp}/build/libvpx.a -lm -lpthread -o ${temp}/vpxenc)
  endif()
  file(GLOB_RECURSE leftovers ${temp}/build/*.o ${temp}/build/*.d ${temp}/build/libvpx_g.a)
  file(REMOVE ${leftovers} ${log})
  file(RENAME ${temp} ${cache}/${entry})
endfunction()

vpxrc_cache(cache)
if(VPXRC_SANITIZE)
  set(sanitize -fsanitize=${VPXRC_SANITIZE})
endif()
file(SHA256 ${CMAKE_CURRENT_LIST_FILE} recipe)
string(SHA256 hash "${recipe} ${sanitize} ${CMAKE_SYSTEM_PROCESSOR} ${CMAKE_C_COMPILER_ID} ${CMAKE_C_COMPILER_VERSION}")
string(SUBSTRING ${hash} 0 12 hash)

# Gives the target of a build of libvpx; further arguments are options of its configure script.
function(vpxrc_add_libvpx target cache entry sanitize)
  if(NOT EXISTS ${cache}/${entry})
    vpxrc_build_libvpx(${cache} ${entry} "${sanitize}" "${ARGN}")
  endif()
  message(STATUS "vpxrc: ${cache}/${entry}")
  add_library(${target} INTERFACE)
  # SYSTEM: our -Werror must not judge libvpx's headers.
  target_include_directories(${target} SYSTEM INTERFACE ${cache}/${entry}/src ${cache}/${entry}/build)
  target_link_libraries(${target} INTERFACE ${cache}/${entry}/build/libvpx.a)
  # The entry's name, not its path: a wheel may move, and Python knows where its user's cache is.
  target_compile_definitions(${target} INTERFACE
    VPXRC_LIBVPX_VERSION="${VPXRC_LIBVPX_VERSION}"
    VPXRC_LIBVPX_SHA256="${VPXRC_LIBVPX_SHA256}"
    VPXRC_LIBVPX_BUILD="${entry}")
endfunction()

set(entry libvpx-${VPXRC_LIBVPX_VERSION}-${hash})
vpxrc_add_libvpx(vpxrc_libvpx ${cache} ${entry} "${sanitize}")
# Nothing here decodes with libvpx.
vpxrc_add_libvpx(vpxrc_libvpx_high ${cache} ${entry}-high "${sanitize}"
  --enable-vp9-highbitdepth --disable-vp9-decoder)
