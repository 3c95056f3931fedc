"""EC2's reasons for the end of an instance, with remedies for those that an account causes."""

REMEDIES = {
    "Client.InternalError": (
        "an encrypted volume looks like this whose key may not be used: see which key the account encrypts EBS volumes "
        "with (aws ec2 get-ebs-default-kms-key-id), and let the launcher role use it (kms:CreateGrant, kms:Decrypt, "
        "kms:DescribeKey, kms:GenerateDataKeyWithoutPlaintext, kms:ReEncrypt*)"
    ),
    "Client.InvalidKMSKey": "the account's default key for EBS volumes cannot be used: enable it, or choose another",
    "Client.VolumeLimitExceeded": "ask AWS for more volume storage, or delete volumes",
    "Client.InvalidSnapshot": "the image's snapshot cannot be read: choose another `ec2.image`",
}
"""Remedies by code, or by the beginning of a code.
https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/troubleshooting-launch.html"""

ORDINARY = ("Client.UserInitiatedShutdown", "Client.InstanceInitiatedShutdown")


def explained(code: str, message: str) -> str:
    """Return EC2's reason as a sentence with its remedy; empty for a requested termination."""
    if not code or code.startswith(ORDINARY):
        return ""
    reason = message if message.startswith(code) else f"{code}: {message}" if message else code
    remedy = next((text for beginning, text in REMEDIES.items() if code.startswith(beginning)), "")
    return f"{reason}; {remedy}" if remedy else reason
