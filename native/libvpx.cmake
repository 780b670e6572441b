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
if(NOT VPXRC_LIBVPX_SOURCE)
  set(VPXRC_LIBVPX_SOURCE "$ENV{VPXRC_LIBVPX_SOURCE}")
endif()

function(vpxrc_fail text)
  message(FATAL_ERROR " vpxrc: ${text}")  # indented, CMake leaves it on one line
endfunction()

function(vpxrc_run what log)
  execute_process(COMMAND ${ARGN} RESULT_VARIABLE result OUTPUT_FILE ${log} ERROR_FILE ${log})
  if(NOT result EQUAL 0)
    vpxrc_fail("${what} failed: read ${log}")
  endif()
endfunction()

# Leaves a tarball with the right checksum at `tarball`, or ends with what to do.
function(vpxrc_fetch_libvpx cache tarball)
  if(VPXRC_LIBVPX_SOURCE)
    cmake_path(ABSOLUTE_PATH VPXRC_LIBVPX_SOURCE)
    if(NOT EXISTS "${VPXRC_LIBVPX_SOURCE}")
      vpxrc_fail("VPXRC_LIBVPX_SOURCE: no such file: ${VPXRC_LIBVPX_SOURCE}")
    endif()
    file(SHA256 "${VPXRC_LIBVPX_SOURCE}" found)
    if(NOT found STREQUAL VPXRC_LIBVPX_SHA256)
      vpxrc_fail("VPXRC_LIBVPX_SOURCE is not libvpx ${VPXRC_LIBVPX_VERSION}: its SHA-256 is ${found}, not ${VPXRC_LIBVPX_SHA256}")
    endif()
    file(COPY_FILE "${VPXRC_LIBVPX_SOURCE}" ${tarball} ONLY_IF_DIFFERENT)
    return()
  endif()
  foreach(source cache upstream debian)
    if(source STREQUAL upstream)
      message(STATUS "vpxrc: libvpx from ${VPXRC_LIBVPX_URL}")
      # Many machines block it without a word, and only TIMEOUT covers connecting; 6 MB need less.
      file(DOWNLOAD ${VPXRC_LIBVPX_URL} ${tarball} STATUS ignored INACTIVITY_TIMEOUT 15 TIMEOUT 30)
    elseif(source STREQUAL debian)
      message(STATUS "vpxrc: libvpx from Debian's source package")
      execute_process(
        COMMAND sh ${CMAKE_CURRENT_FUNCTION_LIST_DIR}/debian_source.sh ${VPXRC_LIBVPX_VERSION} ${cache}/apt.tmp ${tarball}
        OUTPUT_FILE ${cache}/apt.log ERROR_FILE ${cache}/apt.log)
    endif()
    if(EXISTS ${tarball})
      file(SHA256 ${tarball} found)
      if(found STREQUAL VPXRC_LIBVPX_SHA256)
        return()
      endif()
      file(REMOVE ${tarball})
    endif()
  endforeach()
  vpxrc_fail("no libvpx ${VPXRC_LIBVPX_VERSION} source in reach (Debian's answer: ${cache}/apt.log): fetch ${VPXRC_LIBVPX_URL} elsewhere and set VPXRC_LIBVPX_SOURCE to the file")
endfunction()

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
  vpxrc_fetch_libvpx(${cache} ${tarball})

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

if(NOT "$ENV{VPXRC_CACHE}" STREQUAL "")
  set(cache "$ENV{VPXRC_CACHE}")
elseif(NOT "$ENV{XDG_CACHE_HOME}" STREQUAL "")
  set(cache "$ENV{XDG_CACHE_HOME}/vpxrc")
else()
  set(cache "$ENV{HOME}/.cache/vpxrc")
endif()
execute_process(COMMAND ${CMAKE_COMMAND} -E make_directory ${cache} RESULT_VARIABLE result ERROR_QUIET)
if(NOT result EQUAL 0)
  vpxrc_fail("cannot write to ${cache}: set VPXRC_CACHE to a folder that can be written")
endif()
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
