"""Pictures: from a caller's URL or base64 to decoded, sized RGB. Knows nothing of prompts or HTTP routes."""
