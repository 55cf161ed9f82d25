import { rm } from 'node:fs/promises';

export default async function globalTeardown(): Promise<void> {
  const running = globalThis.testPostgres;
  if (running === undefined) return;
  await running.postgres.stop();
  await rm(running.postgres.dataDir, { recursive: true, force: true }); // elsewhere when the temporary folder is private
  await rm(running.folder, { recursive: true, force: true });
  globalThis.testPostgres = undefined;
}
