import { startXaiEmulator } from '../src/sandbox/xai-emulator.ts';

// The emulated provider in a process of its own, so that its work is not counted as anyone else's.
const [apiKey, firstTokenMs, tokenIntervalMs] = process.argv.slice(2);
const emulator = await startXaiEmulator({ apiKeys: [apiKey!], pace: { firstTokenMs: Number(firstTokenMs), tokenIntervalMs: Number(tokenIntervalMs), reasoningTokenMs: 0 } });
process.send?.({ url: emulator.url });
