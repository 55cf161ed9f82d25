type Fields = Record<string, unknown>;

/**
 * A response as the events of its stream, in the order in which the provider sends them; each text in one piece.
 *
 * @see https://platform.openai.com/docs/api-reference/responses-streaming
 */
export function responseEvents(response: Fields): Buffer {
  const events: Fields[] = [];
  const { usage: _usage, ...rest } = response;
  const begun = { ...rest, status: 'in_progress', output: [], completed_at: null };
  events.push({ type: 'response.created', response: begun }, { type: 'response.in_progress', response: begun });
  for (const [index, item] of ((response['output'] ?? []) as Fields[]).entries()) events.push(...itemEvents(item, index));
  events.push({ type: response['status'] === 'incomplete' ? 'response.incomplete' : 'response.completed', response });
  const frames = events.map(({ type, ...event }, sequence) => `event: ${String(type)}\ndata: ${JSON.stringify({ type, sequence_number: sequence, ...event })}\n\n`);
  return Buffer.from(`${frames.join('')}data: [DONE]\n\n`);
}

function itemEvents(item: Fields, outputIndex: number): Fields[] {
  const place = { item_id: item['id'], output_index: outputIndex };
  const added = { type: 'response.output_item.added', output_index: outputIndex, item: { ...item, status: 'in_progress', ...emptied(item) } };
  const done = { type: 'response.output_item.done', output_index: outputIndex, item };
  if (item['type'] === 'function_call') {
    return [added, { type: 'response.function_call_arguments.delta', ...place, delta: item['arguments'] }, { type: 'response.function_call_arguments.done', ...place, name: item['name'], arguments: item['arguments'] }, done];
  }
  const parts = item['type'] === 'message' && Array.isArray(item['content']) ? (item['content'] as Fields[]) : [];
  return [added, ...parts.flatMap((part, contentIndex) => partEvents(part, { ...place, content_index: contentIndex })), done];
}

function partEvents(part: Fields, place: Fields): Fields[] {
  const added = { type: 'response.content_part.added', ...place, part: { ...part, ...(part['type'] === 'output_text' ? { text: '' } : {}) } };
  const texts = part['type'] === 'output_text'
    ? [{ type: 'response.output_text.delta', ...place, delta: part['text'], logprobs: [] }, { type: 'response.output_text.done', ...place, text: part['text'], logprobs: [] }]
    : [];
  return [added, ...texts, { type: 'response.content_part.done', ...place, part }];
}

function emptied({ type }: Fields): Fields {
  return type === 'message' ? { content: [] } : type === 'function_call' ? { arguments: '' } : type === 'reasoning' ? { summary: [] } : {};
}
