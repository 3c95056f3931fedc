"""Object stores behind one protocol: S3, a folder, SFTP and fsspec, the Hugging Face Hub, a web address."""
