/**
 * SwiftShader, a Vulkan driver in software, and a Vulkan loader, out of the npm package `@sparticuz/chromium`: what a
 * machine without a GPU and without Vulkan runs WGSL on. Linux on x64 only; the package is an optional dependency.
 */

import { createReadStream } from 'node:fs';
import { access, mkdir, mkdtemp, rename, rm, stat } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { pipeline } from 'node:stream/promises';
import { fileURLToPath } from 'node:url';
import { createBrotliDecompress } from 'node:zlib';
import tar from 'tar-fs';

export type SwiftShader = Readonly<{
  /** The driver's manifest, for `VK_ICD_FILENAMES` or `VK_ADD_DRIVER_FILES`. */
  icdFile: string;
  /** `libvulkan.so.1`. */
  loaderFile: string;
}>;

/** Only these leave the archive. */
const FILES = ['libvk_swiftshader.so', 'vk_swiftshader_icd.json', 'libvulkan.so.1'];

/** Unpacks it unless that is done; `null` where the package is not installed or does not fit the machine. */
export async function unpackSwiftShader(): Promise<SwiftShader | null> {
  if (process.platform !== 'linux' || process.arch !== 'x64') return null;
  const archive = await findArchive();
  if (archive === null) return null;
  const { size } = await stat(archive);
  const name = `swiftshader-${size}`;
  for (const cache of [packageCache(), join(tmpdir(), `routed-experts-${process.getuid?.() ?? 0}`)]) {
    try {
      return locate(await unpackInto(cache, name, archive));
    } catch (error) {
      if (!isPlacementError(error)) throw error;
    }
  }
  return null;
}

async function findArchive(): Promise<string | null> {
  try {
    const entry = createRequire(import.meta.url).resolve('@sparticuz/chromium');
    const root = entry.slice(0, entry.lastIndexOf('chromium') + 'chromium'.length);
    const archive = join(root, 'bin', 'swiftshader.tar.br');
    await access(archive);
    return archive;
  } catch {
    return null;
  }
}

function packageCache(): string {
  return join(dirname(fileURLToPath(import.meta.url)), '..', '..', '..', 'node_modules', '.cache', 'routed-experts');
}

function locate(folder: string): SwiftShader {
  return { icdFile: join(folder, 'vk_swiftshader_icd.json'), loaderFile: join(folder, 'libvulkan.so.1') };
}

/**
 * The folder appears under its name only when it is complete: unpacked beside it, then renamed. Of two processes that
 * race, one rename finds the other's folder there and its own copy is dropped.
 */
async function unpackInto(cache: string, name: string, archive: string): Promise<string> {
  const folder = join(cache, name);
  if (await exists(folder)) return folder;
  await mkdir(cache, { recursive: true, mode: 0o700 });
  const work = await mkdtemp(join(cache, 'unpacking-'));
  try {
    await pipeline(
      createReadStream(archive),
      createBrotliDecompress(),
      tar.extract(work, { ignore: (path) => path !== work && !FILES.some((file) => path === join(work, file)) }),
    );
    await rename(work, folder);
  } catch (error) {
    await rm(work, { recursive: true, force: true });
    if (!(await exists(folder))) throw error;
  }
  return folder;
}

async function exists(path: string): Promise<boolean> {
  return access(path).then(
    () => true,
    () => false,
  );
}

/** The folder cannot be written; another one may. */
function isPlacementError(error: unknown): boolean {
  const code = error instanceof Error && 'code' in error ? error.code : null;
  return code === 'EACCES' || code === 'EROFS' || code === 'EPERM' || code === 'ENOSPC' || code === 'ENOTDIR';
}
